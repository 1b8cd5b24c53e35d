"""One real server for all clients."""

import pytest
from PIL import Image
from skimage import data

from clients.answers import CATS, ESPRESSO, MODEL
from running_server import Server


@pytest.fixture(scope="session")
def server():
    running = Server(model=MODEL).wait_until_ready()
    yield running
    assert running.stop() == 0, running.log
    running.close()


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """An espresso and a cat, as files."""
    folder = tmp_path_factory.mktemp("photos")
    files = [folder / "coffee.png", folder / "chelsea.png"]
    for file in files:
        Image.fromarray(getattr(data, file.stem)()).save(file)
    return files


@pytest.fixture(scope="session")
def predicted(server, photos):
    """The five best classes of each photo, from ``POST /predict``."""
    answers = [server.predict(photo.read_bytes(), top_k=5).json() for photo in photos]
    espresso, cat = (answer["predictions"] for answer in answers)
    assert espresso[0]["class_index"] == ESPRESSO
    assert cat[0]["class_index"] in CATS
    return espresso, cat
