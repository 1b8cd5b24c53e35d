"""Who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = sorted((ROOT / "predictor").glob("*.py"))
WEB = sorted((ROOT / "predictor" / "web").glob("*.py"))
SHARE = sorted((ROOT / "predictor" / "share").glob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("path", CORE, ids=lambda p: p.stem)
def test_the_core_knows_no_web_framework(path):
    framework = {"flask", "werkzeug", "jinja2", "gunicorn", "predictor.web"}
    assert not [name for name in imports(path) if framework & {name, name.split(".")[0]}]


@pytest.mark.parametrize("path", WEB, ids=lambda p: p.stem)
def test_the_web_knows_no_torch(path):
    heavy = {"torch", "torchvision", "predictor.model", "predictor.weights", "predictor.zoo"}
    assert not [name for name in imports(path) if heavy & {name, name.split(".")[0]}]


@pytest.mark.parametrize("path", SHARE, ids=lambda p: p.stem)
def test_sharing_knows_neither_the_web_framework_nor_torch(path):
    """It takes any Flask app as it is; who serves it is predictor.web's business."""
    others = {"flask", "werkzeug", "torch", "torchvision"}
    assert not [name for name in imports(path) if name.split(".")[0] in others]


@pytest.mark.parametrize(
    ("start", "others"),
    [
        ("wsgi", {"predictor.share", "requests"}),
        ("predictor.share", {"ngrok", "pyngrok", "flask_ngrok", "google.colab"}),
    ],
)
def test_nobody_imports_what_only_sharing_needs(start, others):
    check = f"import sys, {start}; sys.exit(bool({others!r} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("module", ["batching", "decoding", "ranking", "labels", "settings"])
def test_the_steps_know_nothing_of_torch(module):
    assert "torch" not in list(imports(ROOT / "predictor" / f"{module}.py"))


def test_the_app_listens_before_torch_is_imported():
    """Importing the app, as gunicorn's worker does, must not take the seconds torch takes."""
    check = "import sys, wsgi; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0


def test_the_master_imports_neither_torch_nor_what_must_wait_for_its_folder():
    """prometheus_client decides, when it is imported, whether there are several processes."""
    check = (
        "import runpy, sys; runpy.run_path('gunicorn.conf.py'); import receiving;"
        " sys.exit(bool({'torch', 'prometheus_client'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0
