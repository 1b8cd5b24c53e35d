"""Triton: the repository in a real tritonserver, asked by tritonclient."""

import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
import pytest
import requests

from export.wrong import WRONG_MODELS, photos, proof, write
from photographs import CLASSES
from predictor.export import triton as triton_format
from predictor.export.options import Options
from predictor.export.proof import prove
from proxies import free_port, running
from waiting import wait_until

clients = pytest.importorskip("tritonclient.http", reason="no tritonclient: make exports has it")
grpc = pytest.importorskip("tritonclient.grpc", reason="no tritonclient: make exports has it")
from google.protobuf import text_format  # noqa: E402
from tritonclient.grpc.model_config_pb2 import TYPE_FP32, TYPE_STRING, ModelConfig  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

MISSING = "no tritonserver on the PATH: make exports has it"
has_triton = pytest.mark.skipif(shutil.which("tritonserver") is None, reason=MISSING)
HEAD = "Inference-Header-Content-Length"
pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def written(small, tmp_path_factory):
    """The module, and the folder of a right artefact."""
    folder = tmp_path_factory.mktemp("triton") / "out"
    return write("triton", small, folder), folder


@pytest.fixture(scope="module")
def data():
    return [content for _, content in photos()]


@pytest.fixture(scope="module")
def triton(written):
    """The addresses of a running Triton, for HTTP and gRPC."""
    if shutil.which("tritonserver") is None:
        pytest.skip(MISSING)
    http, rpc = (f"127.0.0.1:{free_port()}" for _ in range(2))
    command = ["tritonserver", f"--model-repository={written[1] / 'models'}",
               "--allow-metrics=false", "--http-address=127.0.0.1", "--grpc-address=127.0.0.1",
               f"--http-port={http.split(':')[1]}", f"--grpc-port={rpc.split(':')[1]}"]  # fmt: skip
    with running(command, f"http://{http}/v2/health/live", stderr=subprocess.DEVNULL) as url:
        ready = url.replace("/live", "/ready")
        wait_until(lambda: requests.get(ready, timeout=60).ok, 300)
        yield http, rpc


@pytest.fixture(params=["HTTP", "gRPC"])
def infer(request, triton, small):
    """A function: photos and a number of classes → what tritonclient reads."""
    module = clients if request.param == "HTTP" else grpc
    address = triton[request.param == "gRPC"]
    with module.InferenceServerClient(address) as client:

        def infer(data, classes=0):
            array = np.array(data, np.object_)[:, np.newaxis]
            image = module.InferInput("image", [len(data), 1], "BYTES")
            image.set_data_from_numpy(array)
            asked = module.InferRequestedOutput("logits", class_count=classes)
            return client.infer(small.name, [image], outputs=[asked]).as_numpy("logits")

        yield infer


@has_triton
def test_repository_answers_as_the_server(small, written):
    module, folder = written
    found = proof(module, small, folder)
    assert found.ok, found
    assert (found.same, found.photos, found.failure) == (20, 20, "")
    assert found.classes >= CLASSES


def spoil(right, folder, wrong):
    """Copy a model under another name, with a wrong description and wrong names of the classes."""
    shutil.copytree(right, folder)
    config, path = folder / "config.pbtxt", folder / "1" / "predictor.json"
    config.write_text(config.read_text().replace(f'"{right.name}"', f'"{folder.name}"', 1))
    card = wrong(json.loads(path.read_text()))
    path.write_text(json.dumps(card))
    names = [f"{name}\n" for _, name in card["labels"].values()]  # Triton itself names the classes
    (folder / "labels.txt").write_text("".join(names))


@pytest.fixture(scope="module")
def wrong_ones(small, written, full, tmp_path_factory):
    """One Triton with a model for each platform and mistake: its URL, and the repository."""
    repository = tmp_path_factory.mktemp("wrong")
    for platform, (_, right) in {"python": written, "onnxruntime": full}.items():
        for name, wrong in WRONG_MODELS.items():
            spoil(right / "models" / small.name, repository / f"{platform}-{name}", wrong)
    with triton_format.serving(repository) as url:
        yield url, repository


@has_triton
@pytest.mark.parametrize("platform", ["python", "onnxruntime"])
@pytest.mark.parametrize("name", WRONG_MODELS)
def test_wrong_repository_is_rejected(small, wrong_ones, platform, name):
    url, repository = wrong_ones
    options = Options(platform=platform)
    ask = triton_format.client(url, repository / f"{platform}-{name}", options)
    found = prove(ask, small, photos(), triton_format.TOLERANCE)
    assert (found.ok, found.failure) == (False, "")


def test_tritonclient_gets_the_servers_logits(small, infer, data):
    assert infer(data[:1]) == pytest.approx(small.answers(data[:1]).logits, abs=1e-4)
    assert infer(data[:8]) == pytest.approx(small.answers(data[:8]).logits, abs=1e-4)


def test_tritonclient_gets_the_names_of_the_best_classes(small, infer, data):
    for texts, row in zip(infer(data[:4], 3), small.answers(data[:4]).logits, strict=True):
        found = [text.decode().split(":") for text in texts]
        best = [int(index) for index in np.argsort(-row)[:3]]
        assert [int(index) for _, index, _ in found] == best
        assert [name for *_, name in found] == [small.card.labels[at].class_name for at in best]


def post(address, name, photo):
    """Send a photo as the README's curl line does."""
    url = f"http://{address}/v2/models/{name}/infer"
    return requests.post(url, photo, headers={HEAD: "0"}, timeout=60)


def logits_of(answer):
    return np.frombuffer(answer.content[int(answer.headers[HEAD]) :], np.float32)


def test_photo_alone_is_a_request(small, triton, data):
    found = logits_of(post(triton[0], small.name, data[0]))
    assert found == pytest.approx(small.answers(data[:1]).logits[0], abs=1e-4)


def test_bad_photo_fails_only_its_own_request(small, triton, data):
    """Other servers fail all requests that wait in the same batch."""
    sent = [*data[:4], data[0][:2000], b"not a photo", *data[4:8]]
    with ThreadPoolExecutor(len(sent)) as threads:
        answers = [*threads.map(lambda photo: post(triton[0], small.name, photo), sent)]
    damaged, text = answers[4:6]
    assert (damaged.status_code, text.status_code) == (400, 400)
    assert "damaged, truncated" in damaged.json()["error"]
    assert "not an image in a supported format" in text.json()["error"]
    found = [logits_of(answer) for answer in answers[:4] + answers[6:]]
    assert np.array(found) == pytest.approx(small.answers(data[:8]).logits, abs=1e-4)


def test_bad_photo_among_several_fails_the_request(infer, data):
    with pytest.raises(InferenceServerException, match="The image is empty"):
        infer([data[0], b"", data[1]])


def test_requests_that_wait_are_run_together(small, triton, data):
    url = f"http://{triton[0]}/v2/models/{small.name}/stats"

    def sizes():
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda photo: post(triton[0], small.name, photo), data))
        (stats,) = requests.get(url, timeout=60).json()["model_stats"]
        return {one["batch_size"] for one in stats["batch_stats"]}

    wait_until(lambda: max(sizes()) > 1)


def test_more_than_8_photos_are_refused(infer, data):
    with pytest.raises(InferenceServerException, match="batch-size must be <= 8"):
        infer(data[:9])


# Stands in for the backend that this Triton lacks; everything else is the real one.
BACKEND = """
from pathlib import Path
import onnxruntime, triton_python_backend_utils as triton
class TritonPythonModel:
    def initialize(self, args):
        self.session = onnxruntime.InferenceSession(Path(__file__).with_name("model.onnx"))
    def execute(self, requests):
        return [self.run(triton.get_input_tensor_by_name(one, "images")) for one in requests]
    def run(self, images):
        (logits,) = self.session.run(None, {"images": images.as_numpy()})
        return triton.InferenceResponse([triton.Tensor("logits", logits)])
"""


@pytest.fixture(scope="module")
def full(small, tmp_path_factory):
    """The module, and the folder of a repository for a full Triton, with another backend."""
    folder = tmp_path_factory.mktemp("full") / "out"
    module = write("triton", small, folder, platform="onnxruntime")
    (folder / "models" / small.name / "1" / "model.py").write_text(BACKEND)
    config = folder / "models" / small.name / "config.pbtxt"
    text = config.read_text().replace('platform: "onnxruntime_onnx"', 'backend: "python"')
    config.write_text(f"{text}instance_group {{ kind: KIND_CPU }}\n")
    return module, folder


@has_triton
def test_tensors_for_a_full_triton_get_the_servers_answers(small, full):
    module, folder = full
    found = proof(module, small, folder, platform="onnxruntime")
    assert (found.ok, found.same, found.failure) == (True, 20, ""), found


@has_triton
def test_model_that_cannot_be_loaded_is_named(small, written, tmp_path):
    module, right = written
    folder = shutil.copytree(right, tmp_path / "out")
    (path,) = folder.glob("models/*/1/model.onnx")
    path.write_bytes(b"")
    found = proof(module, small, folder)
    assert f"Triton does not load the model: \"failed to load '{small.name}'" in found.failure


@pytest.mark.parametrize("platform", ["python", "onnxruntime"])
def test_configuration_is_what_triton_and_the_model_take(small, tmp_path, platform):
    """This Triton has no onnxruntime backend, so its configuration is only parsed."""
    write("triton", small, tmp_path / "out", platform=platform)
    folder = tmp_path / "out" / "models" / small.name
    config = text_format.Parse((folder / "config.pbtxt").read_text(), ModelConfig())
    graph = ort.InferenceSession(folder / "1" / "model.onnx")
    (image,), (logits,) = config.input, config.output
    (taken,), (returned,) = graph.get_inputs(), graph.get_outputs()
    assert (config.name, config.max_batch_size) == (small.name, 8)
    assert config.HasField("dynamic_batching")
    assert (logits.name, logits.data_type) == ("logits", TYPE_FP32)
    assert [*logits.dims] == returned.shape[1:]
    assert (folder / logits.label_filename).read_text().splitlines() == [
        label.class_name for label in small.card.labels
    ]
    if platform == "python":
        assert (config.backend, image.data_type, [*image.dims]) == ("python", TYPE_STRING, [1])
    else:
        assert config.platform == "onnxruntime_onnx"
        assert (image.name, logits.name) == (taken.name, returned.name)
        assert (image.data_type, [*image.dims]) == (TYPE_FP32, taken.shape[1:])
        assert not (folder / "1" / "model.py").exists()
