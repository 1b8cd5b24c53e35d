"""Who may import whom: each package imports only packages below it, and few import a library."""

import ast
import subprocess
import sys

import pytest

from paths import ROOT

PACKAGE = ROOT / "predictor"
# From the bottom up. The modules of the package itself are "": settings, errors, logs.
LAYERS = ["", "images", "models", "engine", "web", "server", "share", "cli"]
# Only these packages may import the library; elsewhere it is somebody else's business.
ONLY = {
    "PIL": {"images"},
    "torch": {"models"},
    "torchvision": {"models"},
    "safetensors": {"models"},
    "flask": {"web"},
    "jinja2": {"web"},
    "werkzeug": {"web", "server"},
    "werkzeug.serving": {"server"},
    "gunicorn": {"server"},
    "prometheus_client": {"engine", "web"},
    "ngrok": {"share"},
    "pyngrok": {"share"},
    "flask_ngrok": {"share"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    """Modules that a file imports, also inside functions; without those for type checkers."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(path):
    folder, *rest = path.relative_to(PACKAGE).parts
    return folder if rest else ""


def layers_imported(path):
    """Layers of this package that a file imports from."""
    ours = (name.split(".") for name in imports(path) if name.startswith("predictor."))
    return {parts[1] if parts[1] in LAYERS else "" for parts in ours}


def belongs(name, library):
    return name == library or name.startswith(f"{library}.")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_package_imports_only_packages_below_it(path):
    if path.parent == PACKAGE and path.stem in ("__init__", "__main__", "api"):
        return  # the public functions and the command line are above all other layers
    height = LAYERS.index(layer(path))
    assert {name for name in layers_imported(path) if LAYERS.index(name) > height} == set()


@pytest.mark.parametrize("library", ONLY)
def test_library_is_imported_only_by_its_package(library):
    importers = {layer(path) for path in FILES for name in imports(path) if belongs(name, library)}
    assert importers <= ONLY[library]


@pytest.mark.parametrize("folder", ["api", "protocols", "page"])
def test_no_endpoint_imports_another(folder):
    """A protocol, an endpoint and the page share code through predictor.web itself."""
    kinds = [f"predictor.web.{name}" for name in ("api", "protocols", "page")]
    wrong = {
        f"{path.stem}: {name}"
        for path in (PACKAGE / "web" / folder).rglob("*.py")
        for name in imports(path)
        if any(belongs(name, kind) for kind in kinds) and not is_own(path, name)
    }
    assert wrong == set()


def is_own(path, name):
    """Whether a file imports its own folder's parts: a protocol of several files."""
    own = path.parent.relative_to(ROOT).parts
    return len(own) > 3 and belongs(name, ".".join(own))


@pytest.mark.parametrize(
    ("start", "others"),
    [
        ("wsgi", {"predictor.share", "requests", "torch"}),
        ("predictor.share", {"ngrok", "pyngrok", "flask_ngrok", "google.colab"}),
        ("predictor.settings", {"flask", "numpy", "PIL", "torch", "prometheus_client"}),
        # prometheus_client decides, when it is imported, whether there are several processes.
        (
            "runpy; runpy.run_path('gunicorn.conf.py'); import predictor.server.worker",
            {"torch", "prometheus_client"},
        ),
    ],
)
def test_start_imports_nothing_that_it_does_not_need(start, others):
    check = f"import sys, {start}; print({others!r} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "set()\n", done.stderr
