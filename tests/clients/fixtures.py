"""One real server for all clients."""

import subprocess
import sys

import pytest
from PIL import Image
from skimage import data

from clients.answers import CATS, ESPRESSO, MODEL, NODE_MODULES, PROGRAMS
from proxies import free_port, running
from running_server import Server


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """The address of a web site with the programs that are pages, and the npm packages."""
    folder, port = tmp_path_factory.mktemp("pages"), free_port()
    for path in (NODE_MODULES, *PROGRAMS.glob("*.html")):
        (folder / path.name).symlink_to(path)
    command = [sys.executable, "-m", "http.server", str(port), "-b", "127.0.0.1", "-d", str(folder)]
    with running(command, f"http://127.0.0.1:{port}", stderr=subprocess.DEVNULL) as url:
        yield url


@pytest.fixture(scope="session")
def server(pages):
    server = Server(model=MODEL, cors_origins=pages).wait_until_ready()
    yield server
    assert server.stop() == 0, server.log
    server.close()


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """An espresso and a cat, as files."""
    folder = tmp_path_factory.mktemp("photos")
    files = [folder / "coffee.png", folder / "chelsea.png"]
    for file in files:
        Image.fromarray(getattr(data, file.stem)()).save(file)
    return files


@pytest.fixture(scope="session")
def files(photos, tmp_path_factory):
    """A photo, a text, and a file above the size limit."""
    folder = tmp_path_factory.mktemp("files")
    text, large = folder / "notes.txt", folder / "large.jpg"
    text.write_text("not a photo")
    with large.open("wb") as file:
        file.truncate(24 * 1024 * 1024)
    return photos[0], text, large


@pytest.fixture(scope="session")
def predicted(server, photos):
    """The five best classes of each photo, from ``POST /predict``."""
    answers = [server.predict(photo.read_bytes(), top_k=5).json() for photo in photos]
    espresso, cat = (answer["predictions"] for answer in answers)
    assert espresso[0]["class_index"] == ESPRESSO
    assert cat[0]["class_index"] in CATS
    return espresso, cat
