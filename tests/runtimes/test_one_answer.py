"""The same photographs, sent to this app's server and to other runtimes."""

import shutil
from contextlib import closing

import pytest
import requests

from conftest import app_of
from export.wrong import photos, write
from predictor.engine.classifier import Classifier
from predictor.export.options import Options
from predictor.server.background import BackgroundServer
from predictor.settings import Settings

# Each format with the programs that it needs.
NEEDS = {"torchserve": ("torchserve", "torch-model-archiver", "java")}
pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.fixture
def served(small):
    """The classes that the server answers, each with its id."""
    classifier = Classifier(Settings(), load=lambda *_: small.served)
    classifier.start()
    classifier.loading.result(60)
    with closing(BackgroundServer(app_of(classifier), "127.0.0.1", 0)) as server:
        answers = [requests.post(f"{server.url}/predict", data=data).json() for _, data in photos()]
    classifier.close()
    return [(answer["class_id"], answer["class_name"]) for answer in answers]


@pytest.mark.parametrize("format", NEEDS)
def test_photographs_get_one_answer(small, served, tmp_path, format):
    missing = [name for name in NEEDS[format] if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not on PATH: {', '.join(missing)}")
    module = write(format, small, tmp_path / "out")
    with module.runtime(tmp_path / "out", Options()) as run:
        found = run([data for _, data in photos()])
    assert [tuple(label) for label in found.best] == served
    assert len(set(served)) >= 10
