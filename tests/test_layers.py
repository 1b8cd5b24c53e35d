"""Who may import whom: each package imports only packages below it, and few import a library."""

import ast
import subprocess
import sys

import pytest

from paths import ROOT

PACKAGE = ROOT / "predictor"
# Only these packages may import the library; elsewhere it is somebody else's business.
ONLY = {
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


def belongs(name, library):
    return name == library or name.startswith(f"{library}.")


@pytest.mark.parametrize("library", ONLY)
def test_only_one_package_imports_the_library(library):
    importers = {layer(path) for path in FILES for name in imports(path) if belongs(name, library)}
    assert importers <= ONLY[library]


@pytest.mark.parametrize(
    ("start", "others"),
    [
        ("wsgi", {"predictor.share", "requests", "torch"}),
        ("predictor.share", {"ngrok", "pyngrok", "flask_ngrok", "google.colab"}),
        # prometheus_client decides, when it is imported, whether there are several processes.
        (
            "runpy; runpy.run_path('gunicorn.conf.py'); import predictor.server.receiving",
            {"torch", "prometheus_client"},
        ),
    ],
)
def test_a_start_imports_nothing_that_must_wait_or_is_not_needed(start, others):
    check = f"import sys, {start}; print({others!r} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "set()\n", done.stderr
