"""The wheel: what is in it, and that it serves from another folder without the repository."""

import json
import os
import signal
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image
from skimage import data

from paths import ROOT
from predictor import __version__
from running_server import Server
from waiting import wait_until

pytestmark = pytest.mark.server

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
MODEL = "efficientnet_lite0"
EXTRAS = ("timm", "torch", "heif", "onnx", "export", "executorch", "ray")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the working tree."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(folder)]
    subprocess.run([*PIP, "wheel", *options, str(ROOT)], check=True, timeout=120)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def programs(wheel, tmp_path_factory):
    """The programs of an empty environment with the wheel; it sees the dependencies of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    seen = [path for path in sys.path if path.endswith("-packages")]
    (packages / "dependencies.pth").write_text("\n".join(seen))
    install = ["install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*PIP, "--python", str(python), *install], check=True, timeout=120)
    return python.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a photo, and with modules that have the names of the app's."""
    folder = tmp_path_factory.mktemp("elsewhere")
    Image.fromarray(data.coffee()).save(folder / "coffee.png")
    for name in ("wsgi", "predictor", "app"):
        (folder / f"{name}.py").write_text("raise ImportError('not the installed package')")
    (folder / "gunicorn.conf.py").write_text("bind = 'not an address'")
    return folder


def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def requirements(path):
    """Names and ranges in a requirements file, with those of the files that it includes."""
    found = set()
    for line in path.read_text().splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("-r "):
            found |= requirements(path.parent / line.removeprefix("-r "))
        elif line:
            found.add(name_and_range(Requirement(line)))
    return found


def name_and_range(requirement):
    return canonicalize_name(requirement.name), str(requirement.specifier)


def test_wheel_has_the_ranges_of_requirements_txt(wheel):
    declared = [Requirement(text) for text in metadata(wheel).get_all("Requires-Dist")]
    extras = {extra: requirements(ROOT / f"requirements-{extra}.txt") for extra in EXTRAS}
    needed = requirements(ROOT / "requirements.txt").union(*extras.values())
    assert {name_and_range(r) for r in declared} == needed
    for extra, expected in extras.items():
        added = {name_and_range(r) for r in declared if f'"{extra}"' in str(r.marker)}
        assert added == expected


def test_wheel_has_the_version_of_the_package(wheel):
    assert metadata(wheel)["Version"] == __version__


def test_wheel_has_every_tracked_file_of_the_app_and_no_other(wheel):
    command = ["git", "ls-files", "predictor", "static", "templates"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    top = ["gunicorn.conf.py", "imagenet_class_index.json", "wsgi.py"]
    files = [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()] + top
    expected = {
        name if name.startswith("predictor/") else f"predictor/_resources/{name}" for name in files
    }
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == expected


def test_installed_command_classifies_from_another_folder(programs, folder):
    command = [programs / "predictor", "classify", "coffee.png", "--format", "jsonl"]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PREDICTOR_MODEL": MODEL},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["class_name"] == "espresso"


@pytest.fixture(scope="module")
def server(programs, folder):
    running = Server(command=[str(programs / "predictor"), "serve"], folder=folder, model=MODEL)
    yield running.wait_until_ready()
    status, log = running.stop(), running.log
    running.close()
    assert status == 0, log


def test_installed_command_serves_from_another_folder(server, folder):
    answer = server.predict((folder / "coffee.png").read_bytes()).json()
    assert answer == {"class_id": "n07920052", "class_name": "espresso"}
    assert "/predict" in server.get("/openapi.json").json()["paths"]


def test_installed_server_has_the_page_and_its_files(server):
    assert 'src="static/page.js"' in server.get("/").text
    assert server.get("/static/page.js").text == (ROOT / "static" / "page.js").read_text()


def test_installed_server_reloads_on_sighup(server, folder):
    first = server.worker
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.log.count("Ready at") == 2 and server.worker != first)
    assert server.predict((folder / "coffee.png").read_bytes()).status_code == 200
