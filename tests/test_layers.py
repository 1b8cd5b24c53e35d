"""Which package may import which, and which libraries.

The package is a stack of layers. A module imports only from its own layer and from lower ones, and
some libraries belong to one layer.
"""

import ast
import functools
import os
import subprocess
import sys

import pytest

import predictor
from onnx_files import write
from paths import ROOT

PACKAGE = ROOT / "predictor"
# From the bottom up. "base" are the modules beside the packages: settings, errors, logs, …
# "top" are the public functions and the command line.
LAYERS = ["base", "images", "models", "engine", "export", "store", "web", "server", "share", "top"]
TOP = {"__main__", "api", "cli", *predictor.__all__} - {"export"}
# The layers that may import a library.
LIBRARIES = {
    "PIL": {"images"},
    "pillow_heif": {"images"},
    "torch": {"models", "export"},
    "onnx": {"export"},
    "executorch": {"export"},
    "torchvision": {"models"},
    "safetensors": {"models"},
    "onnxruntime": {"models", "export"},
    "timm": {"models"},
    "flask": {"web"},
    "jinja2": {"web", "top"},  # of the reports on the command line, too
    "werkzeug": {"web", "server"},
    "werkzeug.serving": {"server"},
    "gunicorn": {"server"},
    "prometheus_client": {"engine", "web"},
    "ngrok": {"share"},
    "pyngrok": {"share"},
    "flask_ngrok": {"share"},
}
FILES = sorted(PACKAGE.rglob("*.py"))
ENDPOINTS = ["predictor.web.api", "predictor.web.page", "predictor.web.protocols"]
SERVE_ONE_MODEL = """
import os
os.environ |= {"PREDICTOR_MODEL": "squeezenet1_1", "PREDICTOR_WEIGHTS": "random"}
from predictor.store.folder import process_store
from wsgi import app
store = process_store()
store.start()
store.loading.result()
photo = open("docs/phone.png", "rb").read()
for path in ("/predict", "/explain"):
    assert app.test_client().post(path, data=photo).status_code == 200
store.close()
"""


SERVE_ONNX = SERVE_ONE_MODEL.replace(
    '"squeezenet1_1", "PREDICTOR_WEIGHTS": "random"',
    'os.environ["NET"], "PREDICTOR_RESIZE": "64", "PREDICTOR_MEAN": "0", "PREDICTOR_STD": "1"',
).replace('("/predict", "/explain")', '["/predict"]')


def module_name(path):
    """``predictor.web.api.predict`` for its file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def layer(name):
    """The layer of a module, or of what is imported from it."""
    first = (*name.split("."), "__init__")[1]
    if first in LAYERS:
        return first
    return "top" if first in TOP else "base"


@functools.cache
def imports(path):
    """Modules that a file imports, also within functions, but not those for type checkers."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_in(name, package):
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_module_imports_no_higher_layer(path):
    own = LAYERS.index(layer(module_name(path)))
    ours = {name for name in imports(path) if is_in(name, "predictor")}
    if path == PACKAGE / "__init__.py":
        own = LAYERS.index("top")  # it fetches the public functions when they are first used
    assert {name for name in ours if LAYERS.index(layer(name)) > own} == set()


@pytest.mark.parametrize("library", LIBRARIES)
def test_library_is_imported_only_by_its_layers(library):
    importers = {
        layer(module_name(path)) for path in FILES for name in imports(path) if is_in(name, library)
    }
    assert importers <= LIBRARIES[library]


def test_nothing_that_serves_imports_the_exports():
    ours = "predictor.export"
    importers = {module_name(f) for f in FILES if any(is_in(name, ours) for name in imports(f))}
    others = {name for name in importers if not is_in(name, ours)}
    assert others == {"predictor.cli", "predictor.cli.export"}


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if any(is_in(module_name(path), folder) for folder in ENDPOINTS)],
    ids=module_name,
)
def test_endpoint_imports_no_other_endpoint(path):
    """Endpoints, protocols and the page share code through the modules of ``predictor.web``."""
    endpoint = ".".join(module_name(path).split(".")[:4])  # some have several modules
    others = {name for name in imports(path) if any(is_in(name, folder) for folder in ENDPOINTS)}
    assert {name for name in others if not is_in(name, endpoint)} == set()


@pytest.mark.parametrize(
    ("start", "needless"),
    [
        ("import predictor.settings", {"flask", "numpy", "PIL", "prometheus_client", "torch"}),
        ("import predictor.share", {"flask_ngrok", "google.colab", "ngrok", "pyngrok"}),
        # gunicorn's master. When prometheus_client is imported it decides whether there are
        # several processes.
        (
            "import runpy; runpy.run_path('gunicorn.conf.py'); import predictor.server.worker",
            {"flask", "numpy", "PIL", "prometheus_client", "torch"},
        ),
        ("import wsgi", {"limits", "predictor.share", "requests", "torch"}),
        pytest.param(
            SERVE_ONE_MODEL,
            {"efficientnet_lite_pytorch", "limits", "ngrok", "predictor.cli", "predictor.share"}
            | {"pyngrok", "requests", "safetensors", "sympy", "torch._dynamo", "torch._inductor"},
            marks=pytest.mark.slow,
        ),
        (
            SERVE_ONNX,
            {"limits", "onnx", "predictor.models.network", "predictor.share", "requests"}
            | {"safetensors", "torch", "torchvision"},
        ),
    ],
    ids=["settings", "share", "gunicorn's master", "wsgi", "serve one model", "serve an ONNX file"],
)
def test_start_imports_nothing_that_it_does_not_need(start, needless, tmp_path):
    check = f"{start}\nimport sys; print({needless} & sys.modules.keys())"
    environ = {**os.environ, "NET": str(tmp_path / "net.onnx")}
    if start is SERVE_ONNX:
        write(tmp_path / "net.onnx")
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, env=environ, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.stdout == "set()\n", done.stderr
