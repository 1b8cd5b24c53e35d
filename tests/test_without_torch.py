"""The installation for ONNX files, ``pip install '.[onnx]'``: the real server, without torch.

``make test`` installs it and names its folder in the variable ``ONNX``.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess

import numpy as np
import pytest
import requests

from onnx_files import CLASSES, write
from paths import ROOT
from photographs import photographs
from pictures import encode
from predictor.models.loading import load_model
from predictor.settings import Settings
from running_server import Server

PROGRAMS = ROOT / os.environ.get("ONNX", ".venv-onnx") / "bin"
TOML = "[input]\nresize = 72\nmean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n"
COFFEE = 6  # position of the photograph
LABELS = [f"thing {index}" for index in range(CLASSES)]

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not PROGRAMS.exists(), reason="make test installs .venv-onnx"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder, and a photo."""
    folder = tmp_path_factory.mktemp("flowers")
    write(folder / "net.onnx")
    (folder / "labels.txt").write_text("\n".join(LABELS))
    (folder / "model.toml").write_text(f'name = "flowers"\nlabels = "labels.txt"\n{TOML}')
    (folder / "coffee.png").write_bytes(encode(photographs()[COFFEE]))
    return folder


@pytest.fixture(scope="module")
def photo(folder):
    return (folder / "coffee.png").read_bytes()


@pytest.fixture(scope="module")
def server(folder):
    started = Server(
        command=[str(PROGRAMS / "predictor"), "serve"],
        folder=folder,
        environ={"WEB_CONCURRENCY": "2"},
        model="net.onnx",
    )
    yield started.wait_until_ready()
    status, log = started.stop(), started.log
    started.close()
    assert status == 0, log


@pytest.fixture(scope="module")
def best(folder):
    """Index of the photo's best class, by the same file in this process."""
    model = load_model(Settings(model=str(folder / "net.onnx")), 1)
    pixels = model.scorer.preprocessing(photographs()[COFFEE])
    return int(model.scorer.logits([pixels], 1)[0].argmax())


def run(*command, folder=ROOT, **settings):
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environ |= {f"PREDICTOR_{name.upper()}": value for name, value in settings.items()}
    command = [PROGRAMS / command[0], *command[1:]]
    return subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120
    )


def test_installation_has_no_torch():
    done = run("python", "-c", "import torch")
    assert "No module named 'torch'" in done.stderr


def test_predict_answers_the_class_of_the_file(server, photo, best):
    expected = {"class_id": str(best), "class_name": f"thing {best}"}
    assert server.predict(photo).json() == expected
    answers = [server.predict(photo, top_k=3).json()["predictions"] for _ in range(8)]
    assert all(answer == answers[0] for answer in answers)  # of both workers
    assert server.loaded >= 1


def test_explain_is_501_with_a_sentence(server, photo):
    response = requests.post(f"{server.url}/explain", files={"file": photo}, timeout=60)
    assert response.status_code == 501
    assert response.json()["detail"].startswith("An ONNX file cannot be explained")


def test_page_and_probes_and_metrics_answer(server):
    assert "flowers" in server.get("/").text
    assert server.get("/healthz").status_code == 200
    model = server.get("/readyz").json()["model"]
    assert (model["name"], model["weights"], model["device"]) == ("flowers", "net.onnx", "cpu")
    assert "predictor_model_info{" in server.get("/metrics").text
    assert "/predict" in server.get("/openapi.json").json()["paths"]


def test_torchserves_protocol_answers(server, photo, best):
    response = requests.post(f"{server.url}/predictions/flowers", data=photo, timeout=60)
    answer = response.json()
    assert max(answer, key=answer.get) == f"thing {best}"
    assert server.get("/ping").json() == {"status": "Healthy"}
    explained = requests.post(f"{server.url}/explanations/flowers", data=photo, timeout=60)
    assert explained.status_code == 501


def test_kserves_protocol_answers(server, photo, best):
    url, body = f"{server.url}/v1/models/flowers", base64.b64encode(photo).decode()
    sent = {"instances": [{"image": {"b64": body}}]}
    (answer,) = requests.post(f"{url}:predict", json=sent, timeout=60).json()["predictions"]
    assert answer["class_name"] == f"thing {best}"
    assert requests.post(f"{url}:explain", json=sent, timeout=60).status_code == 501


def test_open_inference_protocol_answers(server, photo, best):
    url = f"{server.url}/v2/models/flowers"
    data = [base64.b64encode(photo).decode()]
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "data": data}
    answer = requests.post(f"{url}/infer", json={"inputs": [image]}, timeout=60).json()
    (logits,) = answer["outputs"]
    assert logits["shape"] == [1, CLASSES]
    assert int(np.argmax(logits["data"])) == best
    tensor = np.zeros((1, 3, 64, 64), np.float32)
    sent = {"name": "image", "datatype": "FP32", "shape": [*tensor.shape]}
    sent["data"] = tensor.ravel().tolist()
    response = requests.post(f"{url}-tensor/infer", json={"inputs": [sent]}, timeout=60)
    assert response.json()["outputs"][0]["shape"] == [1, CLASSES]


def test_command_classifies(folder, best):
    done = run(
        "predictor", "classify", "coffee.png", "--format", "jsonl", folder=folder, model="net.onnx"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["class_name"] == f"thing {best}"


@pytest.mark.parametrize("command", [("classify", "coffee.png"), ("serve", "-b", "127.0.0.1:0")])
def test_model_that_needs_torch_says_what_to_install(folder, command):
    done = run("predictor", *command, folder=folder, model="resnet18")
    assert done.returncode != 0
    assert "torch is not installed" in done.stderr
    assert "Traceback" not in done.stderr


DENORMAL = """
import sys
import numpy as np
from predictor.engine.classifier import Classifier
from predictor.settings import Settings

classifier = Classifier(Settings.from_env())
classifier.start()
scorer = classifier.loading.result().scorer
scorer.logits = lambda images, lanes: np.full((1, 20), 1e-20, np.float32) ** 2
(squares,) = classifier.logits([np.zeros(scorer.preprocessing.shape, np.uint8)])
print((squares == 0).all())
"""


def test_inference_threads_treat_denormal_numbers_as_0(folder):
    """The thread that loads the model starts them, and they inherit its mode."""
    done = run("python", "-c", DENORMAL, folder=folder, model="net.onnx")
    assert done.stdout == "True\n", done.stderr
