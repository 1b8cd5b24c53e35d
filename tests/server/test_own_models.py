"""A real gunicorn answers photographs as the model's source does in its own Python pipeline."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
import requests
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

from models.own_code import NET, TRANSFORM, network_in
from onnx_files import write
from paths import ROOT
from photographs import CLASSES, SIZES, answers, photographs, prepared, spread
from pictures import encode
from program_files import Small, save_exported, save_script, traced
from running_server import Server

Logits = NDArray[np.float32]

NAMES = [f"thing {index}" for index in range(20)]
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
PIPELINE = Compose([Resize(72), CenterCrop(64), ToTensor(), Normalize(MEAN, STD)])
INPUT = f"[input]\nsize = 64\nresize = 72\nmean = {MEAN}\nstd = {STD}\n"
TIMM = "mobilenetv3_small_050.lamb_in1k"


class Own(NamedTuple):
    """What is served, and its source's own pipeline."""

    model: str
    batch: Tensor  # the photographs, prepared
    answer: Callable[[Tensor], Logits]  # of a batch
    std: Sequence[float] = STD
    within: float = 1e-4  # differences of logits, as a part of the largest
    weights: str | None = None


def trained(network: nn.Module, batch: Tensor) -> Callable[[Tensor], Logits]:
    """Make the network's answers to the photographs differ; return how it answers."""
    spread(network, batch)
    return lambda batch: answers(network, batch)


def torchvision_file(folder: Path) -> Own:
    torch.manual_seed(0)
    network = models.shufflenet_v2_x0_5(num_classes=20)
    prepare = models.ShuffleNet_V2_X0_5_Weights.DEFAULT.transforms()
    answer = trained(network, batch := prepared(prepare))
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"model": state, "epoch": 3}, folder / "last.pth")
    return Own("shufflenet_v2_x0_5", batch, answer, prepare.std, weights="last.pth")


def own_class(folder: Path) -> Own:
    network = network_in(num_classes=20)
    answer = trained(network, batch := prepared(PIPELINE))
    torch.save(network.state_dict(), folder / "net.pth")
    code = NET.replace("num_classes=12", "num_classes=20") + TRANSFORM
    normalise = "[0.5] * 3, [0.25] * 3"
    assert normalise in code
    (folder / "net.py").write_text(code.replace(normalise, f"{MEAN}, {STD}"))
    return Own("net.py:build", batch, answer, weights="net.pth")


def own_class_by_model_toml(folder: Path) -> Own:
    own = own_class(folder)
    (folder / "net.py").write_text(NET)
    said = 'source = "net.py:Net"\nweights = "net.pth"\n[arguments]\nnum_classes = 20\n'
    (folder / "model.toml").write_text(said + INPUT)
    return own._replace(model=".", weights=None)


def torchscript(folder: Path) -> Own:
    return _program(folder, lambda network: save_script(folder / "net.pt", traced(network)))


def exported(folder: Path) -> Own:
    return _program(folder, lambda network: save_exported(folder / "net.pt2", network))


def _program(folder: Path, save: Callable[[nn.Module], str]) -> Own:
    torch.manual_seed(0)
    answer = trained(network := Small(), batch := prepared(PIPELINE))
    (folder / "model.toml").write_text(INPUT)
    return Own(save(network), batch, answer)


def onnx(folder: Path) -> Own:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 20)
    )
    trained(network, batch := prepared(PIPELINE))
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    path = write(folder / "net.onnx", weights=weights)
    (folder / "model.toml").write_text(INPUT)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def answer(batch: Tensor) -> Logits:
        return np.concatenate([session.run(None, {"image": one[None]})[0] for one in batch.numpy()])

    return Own(str(path), batch, answer, within=1e-3)


def timm(folder: Path) -> Own:
    library = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = library.create_model(TIMM, num_classes=20)
    config = library.data.resolve_model_data_config(network)
    answer = trained(network, batch := prepared(library.data.create_transform(**config)))
    torch.save(network.state_dict(), folder / "net.pth")
    return Own(f"timm:{TIMM}", batch, answer, config["std"], weights="net.pth")


# Triton's names, except for torch.export.
RUNTIMES = {
    torchscript: ("pytorch_libtorch", "pytorch"),
    exported: ("pytorch_export", "pytorch"),
    onnx: ("onnxruntime_onnx", "onnxruntime"),
}


@pytest.mark.parametrize(
    "source",
    [torchvision_file, own_class, own_class_by_model_toml, torchscript, exported, onnx, timm],
)
def test_server_answers_photographs_as_the_source_does(start, tmp_path, source):
    own = source(tmp_path)
    (tmp_path / "labels.txt").write_text("\n".join(NAMES))
    server = serve(start, tmp_path, own.model, own.weights, labels="labels.txt")
    name = server.get("/readyz").json()["model"]["name"]
    config = server.get(f"/v2/models/{name}/config").json()
    runtime = RUNTIMES.get(source, ("pytorch_eager", "pytorch"))
    assert (config["platform"], config["backend"]) == runtime
    found = ask(server, name)
    right = own.answer(own.batch)
    assert len(set(right.argmax(1))) >= CLASSES, "the photographs fall into too few classes"
    assert_alike(found, right, NAMES, own.within)
    mean_is_off = own.batch - 0.01 / torch.tensor(own.std).reshape(3, 1, 1)
    for logits, names in [(own.answer(mean_is_off), NAMES), (right, NAMES[1:] + NAMES[:1])]:
        with pytest.raises(AssertionError):
            assert_alike(found, logits, names, own.within)


def serve(start: Any, folder: Path, model: str, weights: str | None = None, **more: Any) -> Server:
    """Serve a model of a folder; its gunicorn is ready."""
    settings = {"model": model, "max_upload_bytes": 10**8} | more
    settings |= {"weights": weights} if weights else {}
    command = [sys.executable, "-m", "predictor", "serve"]
    server = start(command=command, folder=folder, environ={"PYTHONPATH": str(ROOT)}, **settings)
    return server.wait_until_ready()


class Found(NamedTuple):
    """What a server answers."""

    logits: list[tuple[list[int], Logits]]  # of a batch of photographs
    classes: list[tuple[list[int], list[str]]]  # the best of each


def ask(server: Server, name: str) -> Found:
    """Send the photographs in batches of 1 to 8, some at once."""
    photos = [encode(photo, "BMP") for photo in photographs()]
    order = np.arange(sum(SIZES)) % len(photos)
    batches = [batch.tolist() for batch in np.split(order, np.cumsum(SIZES)[:-1])]

    def post(batch: list[int]) -> tuple[list[int], list[str]]:
        files = [("file", photos[index]) for index in batch]
        results = requests.post(f"{server.url}/predict?top_k=1", files=files, timeout=60).json()
        results = results.get("results", [results])
        return batch, [one["predictions"][0]["class_name"] for one in results]

    def post_to_v2(batch: list[int]) -> tuple[list[int], Logits]:
        return batch, infer(server, name, [photos[index] for index in batch])

    with ThreadPoolExecutor(3) as clients:
        logits = clients.map(post_to_v2, batches)
        classes = clients.map(post, batches[:6])  # 21 photographs
        return Found([*logits], [*classes])


def infer(server: Server, name: str, photos: Sequence[bytes]) -> Logits:
    """The logits of some photos, in one request."""
    data = [base64.b64encode(photo).decode() for photo in photos]
    image = {"name": "image", "datatype": "BYTES", "shape": [len(data)], "data": data}
    url = f"{server.url}/v2/models/{name}/infer"
    response = requests.post(url, json={"inputs": [image]}, timeout=60)
    assert response.status_code == 200, response.text
    (output,) = response.json()["outputs"]
    return np.array(output["data"], np.float32).reshape(output["shape"])


def assert_alike(found: Found, logits: Logits, names: Sequence[str], within: float) -> None:
    """``logits`` and class names are from the source's own pipeline."""
    for batch, served in found.logits:
        difference = np.abs(served - logits[batch]).max() / np.abs(logits).max()
        assert difference <= within, f"{difference} in a batch of {len(batch)}"
    for batch, classes in found.classes:
        assert classes == [names[index] for index in logits[batch].argmax(1)]


BRANCHES = """
from torch import nn


class Net(nn.Module):
    def forward(self, images):
        logits = 8 * images.mean((2, 3)) - 2
        return logits.flip(1) if images.mean() > 0.45 else logits
"""


def test_photos_of_two_branches_at_once_get_what_each_gets_alone(start, tmp_path):
    (tmp_path / "net.py").write_text(BRANCHES)
    said = '[input]\nsize = 8\nresize = "squash"\nmean = 0\nstd = 1\n'
    (tmp_path / "model.toml").write_text(f'source = "net.py:Net"\nbatchable = false\n{said}')
    server = serve(start, tmp_path, ".", max_batch_delay_ms=100)  # photos wait for a batch
    photos = [encode(Image.new("RGB", (8, 8), colour)) for colour in ("#ffdd99", "#300000")]
    bright, dark = (infer(server, "net", [photo]).tolist() for photo in photos)
    assert bright[0][2] > bright[0][0] > 0  # exchanged: the photo is rather red than blue
    assert dark[0][0] > dark[0][2]
    with ThreadPoolExecutor(2) as clients:
        for _ in range(8):
            both = clients.map(lambda photo: infer(server, "net", [photo]).tolist(), photos)
            assert list(both) == [bright, dark]
    assert server.get("/readyz").json()["model"]["max_batch_size"] == 1
