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
NEEDS = {
    "cpp": ("cmake", "g++"),
    "torchserve": ("torchserve", "torch-model-archiver", "java"),
    "triton": ("tritonserver",),
}
pytestmark = pytest.mark.filterwarnings("ignore::Warning")


@pytest.fixture(scope="module")
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
def test_photographs_get_one_answer(small, served, tmp_path, request, format):
    missing = [name for name in NEEDS[format] if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not on PATH: {', '.join(missing)}")
    if format == "cpp":
        request.getfixturevalue("built")
    module = write(format, small, tmp_path / "out")
    with module.runtime(tmp_path / "out", Options()) as run:
        data = [photo for _, photo in photos()]
        found = [label for at in range(0, 20, 8) for label in run(data[at : at + 8]).best]
    assert [label.class_name for label in found] == [name for _, name in served]
    ids = [label.class_id for label in found]
    assert ids == ([""] * 20 if format == "triton" else [id for id, _ in served])
    assert len(set(served)) >= 10
