"""The notebook, run as in Colab: in a fresh clone, with its own kernel."""

import json
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from paths import ROOT
from tunnels import FAKES

NOTEBOOK = ROOT / "notebooks" / "colab.ipynb"


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A fresh clone of the last commit."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git repository, or git is not installed")
    config = tmp_path / "gitconfig"
    config.write_text("[safe]\n\tdirectory = *\n")  # also if another user owns the checkout
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    subprocess.run(["git", "clone", "-q", ROOT, tmp_path / "clone"], check=True, timeout=60)
    return tmp_path / "clone"


@pytest.fixture
def run(clone, tmp_path, monkeypatch):
    """Run the clone's notebook with some fake modules; return the output of each code cell."""
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = tmp_path / "jupyter" / "kernels" / "here" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps({"argv": argv, "display_name": "here", "language": "python"}))
    for name in ("JUPYTER_PATH", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))

    def run(*modules):
        for name in modules:
            copy = shutil.copytree if (FAKES / name).is_dir() else shutil.copy
            (tmp_path / "modules").mkdir(exist_ok=True)
            copy(FAKES / name, tmp_path / "modules" / name)
        notebook = nbformat.read(clone / "notebooks" / "colab.ipynb", as_version=4)
        resources = {"metadata": {"path": str(clone / "notebooks")}}
        NotebookClient(notebook, timeout=200, kernel_name="here", resources=resources).execute()
        return [str(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]

    return run


def test_in_colab_the_notebook_classifies_through_the_tunnel(run):
    install, _, serve, ready, ask, show, train, own = run("ngrok.py", "google")
    assert "error" not in install.lower()
    local, public = re.findall(r"Running on (http://127.0.0.1:\d+)", serve)
    assert local != public
    assert "Anyone who has this URL" in serve
    assert "efficientnet_lite0" in ready or "vgg16" in ready
    assert f"{public} {{'class_id': 'n07920052', 'class_name': 'espresso'}}" in ask
    assert f"Colab shows port {local.rpartition(':')[2]}." in show
    assert float(re.search(r"Loss of the last batch: ([0-9.]+)", train)[1]) < 0.7
    assert re.search(r"http\S+ {'class_id': '2', 'class_name': 'coffee', 'predictions'", own)


def test_outside_colab_it_works_with_a_token_and_leaves_no_files(run, clone, monkeypatch):
    monkeypatch.setenv("NGROK_AUTHTOKEN", "a-token-of-the-environments")
    monkeypatch.setenv("PREDICTOR_TOKENS", "correct-horse-battery")
    *_, serve, _, ask, show, _, own = run("ngrok.py")
    local, public = re.findall(r"Running on (http://127.0.0.1:\d+)", serve)
    assert f"{public} {{'class_id': 'n07920052', 'class_name': 'espresso'}}" in ask
    assert f'src="{local}"' in show
    assert "'class_name': 'coffee'" in own
    assert "Anyone who has this URL" not in serve + own  # it sends the token
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=clone, capture_output=True, timeout=60, check=True
    )
    assert status.stdout == b""


def test_the_notebook_installs_what_it_imports():
    """Running it does not show this, because the tests' packages are installed already."""
    code = "\n".join("".join(c["source"]) for c in json.loads(NOTEBOOK.read_text())["cells"])
    assert "from skimage import data" in code
    assert re.search(r"%pip install .* scikit-image$", code, re.MULTILINE)


def test_the_notebook_is_stored_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    ran = [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]
    assert ran == []


def test_the_documentation_says_which_line_to_edit():
    assert "set `REPOSITORY` in its first cell" in (ROOT / "docs" / "notebooks.md").read_text()
    assert 'REPOSITORY = \\"https://github.com/' in NOTEBOOK.read_text()
