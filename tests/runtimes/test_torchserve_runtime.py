"""Archives in a real TorchServe, on free ports of this machine."""

import json
import os
import re
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import requests
import torch

from conftest import app_of
from export.wrong import WRONG_MODELS, photos, proof, write
from models.own_code import NET, TRANSFORM
from photographs import photographs, spread
from pictures import encode
from predictor.engine.classifier import Classifier
from predictor.errors import ExportError
from predictor.export import torchserve
from predictor.export.artefact import batch
from predictor.export.carried import read_card
from predictor.export.options import Options
from predictor.export.proof import prove
from predictor.export.running import run
from predictor.export.subject import load
from predictor.models.conversion import convert
from predictor.models.loading import load_model
from predictor.settings import Settings
from waiting import wait_until

PROGRAMS = ("torchserve", "torch-model-archiver", "java")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(bool(MISSING), reason=f"not on PATH: {', '.join(MISSING)}"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.usefixtures("forget_modules"),
]
JPEGS = [encode(photo, "JPEG") for photo in photographs()]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """The folder where TorchServe works. After the test, no process names it."""
    place = tmp_path / "t"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    yield place

    def named():
        lines = [one.read_bytes() for one in Path("/proc").glob("[0-9]*/cmdline") if one.exists()]
        return [line for line in lines if str(place).encode() in line]

    wait_until(lambda: not named())


def assert_proven(found):
    assert found.ok, found
    assert (found.same, found.photos, found.failure) == (20, 20, "")
    assert found.classes >= 10


def spread_out(model, folder):
    """A network with seeded weights whose photographs fall into at least ten classes."""
    subject = load(Settings(model=model, weights="random"))
    spread(subject.network, torch.from_numpy(batch([data for _, data in photos()], subject.card)))
    torch.save(subject.network.state_dict(), folder / "net.pth")
    return load(Settings(model=model, weights=str(folder / "net.pth")))


def assert_converts(archive, subject, folder):
    """``predictor convert`` gives the model back: the same card, and the same logits."""
    assert convert(archive, folder) == ""
    model = load_model(Settings(model=str(folder), device="cpu", precision="float32"), 1)
    for field in ("name", "version", "input", "labels", "output"):
        assert getattr(model.card, field) == getattr(subject.card, field)
    pixels = [subject.card.input(photo) for photo in photographs()]
    logits = model.scorer.logits(pixels, 1)
    expected = subject.served.scorer.logits(pixels, 1)
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    assert not {"predictor", "worker.yaml"} & {path.name for path in folder.iterdir()}


def test_archive_answers_as_the_server_and_converts_back(small, tmp_path):
    module = write("torchserve", small, tmp_path / "out")
    assert_proven(proof(module, small, tmp_path / "out"))
    assert_converts(tmp_path / "out" / f"{small.name}.mar", small, tmp_path / "model")


@pytest.fixture(scope="module")
def wrong_ones(small, tmp_path_factory):
    """One TorchServe with an archive for each mistake: its URL, and the folder."""
    folder = tmp_path_factory.mktemp("wrong") / "out"
    write("torchserve", small, folder, archive_format="no-archive")
    for name, wrong in WRONG_MODELS.items():
        card = shutil.copytree(folder / small.name, folder / name) / "predictor.json"
        card.write_text(json.dumps(wrong(json.loads(card.read_text()))))
    config, name = folder / "config.properties", small.name
    several = ",".join(f"{name}={name}" for name in WRONG_MODELS)
    config.write_text(config.read_text().replace(f"{name}={name}", several))
    with torchserve.serving(folder, *WRONG_MODELS) as url:
        yield url, folder


@pytest.mark.parametrize("name", WRONG_MODELS)
def test_wrong_archive_is_rejected(small, wrong_ones, name):
    url, folder = wrong_ones
    ask = torchserve.client(f"{url}/predictions/{name}", read_card(folder / name).labels, False)
    found = prove(ask, small, photos(), torchserve.TOLERANCE, log_probabilities=True)
    assert (found.ok, found.failure) == (False, "")


@pytest.mark.parametrize("model", ["shufflenet_v2_x0_5", "timm:test_resnet", "net.py:build"])
def test_eager_archive_answers_as_the_server_and_converts_back(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET + TRANSFORM)
    subject = spread_out(model, tmp_path)
    options = {"eager": True, "archive_format": "no-archive"}
    module = write("torchserve", subject, tmp_path / "out", **options)
    assert_proven(proof(module, subject, tmp_path / "out", **options))
    assert_converts(tmp_path / "out" / subject.name, subject, tmp_path / "model")


def test_model_that_torchserve_cannot_load_is_a_sentence(small, tmp_path):
    """Its file imports another file, which is not in the archive."""
    module = write("torchserve", small, tmp_path / "out", eager=True)
    reason = "TorchServe does not load the model: ModuleNotFoundError: No module named 'program"
    with pytest.raises(ExportError, match=reason), module.runtime(tmp_path / "out", Options()):
        pass


def test_two_run_at_once(small, tmp_path):
    module = write("torchserve", small, tmp_path / "out")
    one, two = (module.runtime(tmp_path / "out", Options()) for _ in range(2))
    with one as ask, two as other:
        assert ask(JPEGS[:2]).best == other(JPEGS[:2]).best


@pytest.fixture(scope="module")
def lite():
    return load(Settings(model="efficientnet_lite0"))


def test_image_classifier_runs_and_answers_differently(lite, tmp_path):
    python = Path(shutil.which("torchserve")).with_name("python")
    if subprocess.run([python, "-c", "import captum"], capture_output=True).returncode:
        pytest.skip("captum is not installed beside TorchServe")
    options = {"handler": "image_classifier"}
    module = write("torchserve", lite, tmp_path / "out", **options)
    found = proof(module, lite, tmp_path / "out", **options)
    assert (found.ok, found.failure) == (True, "")
    assert found.difference > 0.01
    assert found.same > 10


def test_image_classifier_is_refused_for_few_classes(small, tmp_path):
    few = replace(small, card=replace(small.card, labels=small.card.labels[:4]))
    with pytest.raises(ExportError, match="is for a softmax over at least 5 classes"):
        write("torchserve", few, tmp_path / "out", handler="image_classifier")


def test_lines_of_the_readme_answer_as_the_server(lite, tmp_path, place):
    run("torchserve", lite, [], tmp_path / "out", Options())
    text = (tmp_path / "out" / "README.md").read_text()
    start, curl, stop = re.search("```sh\n(.*?)```", text, re.DOTALL)[1].splitlines()
    ports = torchserve.free_ports()
    with (tmp_path / "out" / "config.properties").open("a") as config:
        config.writelines(f"{key}={value}\n" for key, value in ports.items())
    places = dict.fromkeys(("TMPDIR", "TEMP", "LOG_LOCATION", "METRICS_LOCATION"), str(place))
    given = {"cwd": tmp_path / "out", "env": os.environ | places}
    with (place / "log").open("w") as log:
        server = subprocess.Popen(shlex.split(start), stdout=log, stderr=log, **given)
    url, name = ports["inference_address"], lite.card.name
    try:
        torchserve.wait(server, f"{ports['management_address']}/models/{name}", place / "log")
        classifier = Classifier(Settings(), load=lambda *_: lite.served)
        classifier.start()
        classifier.loading.result(60)
        client = app_of(classifier).test_client()
        path = f"/predictions/{name}"
        for photo in JPEGS:
            (tmp_path / "out" / "photo.jpg").write_bytes(photo)
            command = [*shlex.split(curl.replace("http://127.0.0.1:8080", url)), "-s"]
            found = json.loads(subprocess.check_output(command, **given))
            right = client.post(path, data=photo).json
            assert list(found) == list(right)
            assert found == pytest.approx(right, rel=1e-4)
        with ThreadPoolExecutor(8) as threads:  # one batch, with bad photos in it
            bodies = [JPEGS[0], b"hello", JPEGS[0][:900], *JPEGS[1:6]]
            answers = [*threads.map(lambda data: requests.post(url + path, data=data), bodies)]
        assert [one.status_code for one in answers] == [200, 415, 422, *[200] * 5]
        assert answers[1].json() == client.post(path, data=b"hello").json
        classifier.close()
    finally:
        subprocess.run(shlex.split(stop), **given)
        server.wait(60)
