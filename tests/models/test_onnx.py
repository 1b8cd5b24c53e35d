"""ONNX files answer as ONNX Runtime and torch do by themselves."""

import json
import logging
import os
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision.transforms import CenterCrop, Compose, Grayscale, Normalize, Resize, ToTensor

from onnx_files import CLASSES, FLOAT, FLOAT16, UINT8, write, write_in_two
from paths import ROOT
from photographs import (
    answers,
    assert_alike,
    assert_only_right_is_alike,
    photographs,
    prepared,
    spread,
)
from predictor.errors import NotExplainable
from predictor.models.loading import load_model
from predictor.settings import Settings

LANGUAGES = ("python", "toml")
NAMES = [f"class {index}" for index in range(CLASSES)]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BGR_MEAN = (103.939, 116.779, 123.68)  # of Keras' VGG16, ResNet50 and others
PIPELINE = Compose([Resize(72), CenterCrop(64), ToTensor(), Normalize(MEAN, STD)])
TOML = f"[input]\nresize = 72\nmean = {list(MEAN)}\nstd = {list(STD)}\n"


def small_network(channels=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, CLASSES),
    )  # fmt: skip


def spread_network(batch, channels=3):
    """A network whose answers to the photographs differ, and its weights."""
    network = small_network(channels)
    spread(network, batch)
    return network, {name: value.numpy() for name, value in network.state_dict().items()}


def load(path, toml=TOML, **settings):
    (path.parent / "model.toml").write_text(toml)
    return load_model(Settings(model=str(path), **settings), 2)


def own_pipeline(path, batch):
    """The logits of ONNX Runtime's own Python interface, one photograph at a time."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(["logits"], {name: one[None]})[0] for one in batch])


@pytest.mark.parametrize(
    ("shape", "type", "toml"),
    [
        (("N", 3, 64, 64), FLOAT, TOML),
        (("N", 64, 64, 3), FLOAT, TOML),
        ((None, 3, None, None), FLOAT, f"{TOML}size = 64\n"),
        (("N", 3, 64, 64), FLOAT16, TOML),
    ],
    ids=["channels first", "channels last", "any size", "float16"],
)
def test_onnx_file_answers_as_its_own_pipelines(tmp_path, shape, type, toml):
    batch = prepared(PIPELINE)
    network, weights = spread_network(batch)
    path = write(tmp_path / "net.onnx", weights=weights, shape=shape, type=type)
    model = load(path, toml)
    assert_only_right_is_alike(model, answers(network, batch), NAMES, within=1e-3)
    if shape[:2] == ("N", 3) and type == FLOAT:
        assert_only_right_is_alike(model, own_pipeline(path, batch.numpy()), NAMES, within=1e-3)


def test_keras_style_file_takes_bgr_from_0_to_255(tmp_path):
    def squashed(photo):
        pixels = np.asarray(photo.resize((64, 48), Image.Resampling.BILINEAR), np.float32)
        return torch.from_numpy(pixels[..., ::-1] - BGR_MEAN).float().permute(2, 0, 1)

    batch = prepared(squashed)
    network, weights = spread_network(batch)
    path = write(tmp_path / "keras.onnx", weights=weights, shape=("N", 48, 64, 3))
    toml = f'[input]\nresize = "squash"\nchannels = "BGR"\nscale = "0..255"\nmean = {[*BGR_MEAN]}'
    assert_alike(load(path, toml), answers(network, batch), NAMES, within=1e-3)
    expected = own_pipeline(path, batch.permute(0, 2, 3, 1).numpy())
    assert_alike(load(path, toml), expected, NAMES, within=1e-3)
    with pytest.raises(AssertionError):
        assert_alike(load(path, toml.replace("BGR", "RGB")), expected, NAMES, within=1e-3)


@pytest.mark.parametrize("shape", [("N", 3, 64, 64), ("N", 64, 64, 3)])
def test_uint8_file_gets_the_pixels_as_they_are(tmp_path, shape):
    batch = prepared(PIPELINE)
    network, weights = spread_network(batch)
    normalise = np.multiply(MEAN, 255), np.multiply(STD, 255)
    path = tmp_path / "net.onnx"
    write(path, weights=weights, shape=shape, type=UINT8, normalise=normalise)
    model = load(path, "[input]\nresize = 72\n")
    assert_alike(model, answers(network, batch), NAMES, within=1e-3)
    pixels = model.scorer.preprocessing(photographs()[0])
    whole = model.scorer.logits([pixels])
    tensor = model.scorer.logits([pixels + np.float32(0.3)])  # of a client
    assert np.array_equal(whole, tensor)


def test_grey_file_takes_one_channel(tmp_path):
    grey = Compose([Grayscale(), Resize((28, 28)), ToTensor(), Normalize(0.5, 0.5)])
    batch = prepared(grey)
    network, weights = spread_network(batch, channels=1)
    path = write(tmp_path / "digits.onnx", weights=weights, shape=("N", 1, 28, 28))
    model = load(path, '[input]\nresize = "squash"\nmean = 0.5\nstd = 0.5\n')
    pixels = [model.scorer.preprocessing(photo) for photo in photographs()]
    np.testing.assert_allclose(model.scorer.logits(pixels), answers(network, batch), atol=1e-3)


@pytest.mark.slow
def test_exported_file_of_the_documentation_answers_as_torch(tmp_path, monkeypatch):
    """docs/your-model.md, from the training script's last line to the served model."""
    text = (ROOT / "docs" / "your-model.md").read_text().split("## ONNX\n")[1].split("\n## ")[0]
    (export,), (toml,) = (re.findall(rf"```{kind}\n(.*?)```", text, re.S) for kind in LANGUAGES)
    batch = prepared(Compose([Resize(256), CenterCrop(224), *PIPELINE.transforms[2:]]))
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v3_small(num_classes=CLASSES).eval()
    spread(network, batch)
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():  # of torch about itself
        warnings.simplefilter("ignore")
        exec(export, {"torch": torch, "net": network})
    (tmp_path / "labels.txt").write_text("\n".join(NAMES))
    model = load(tmp_path / "net.onnx", toml)
    assert_only_right_is_alike(model, answers(network, batch), NAMES, within=1e-3)
    assert load_model(Settings(model="."), 2).info.parameters == model.info.parameters
    parameters = sum(p.numel() for p in network.parameters())
    assert model.info.parameters == pytest.approx(parameters, rel=0.02)  # batch norms are folded


def test_model_info_says_what_is_served(tmp_path):
    info = load(write(tmp_path / "my net (2).onnx")).info
    assert (info.name, info.device, info.precision) == ("my-net-2", "cpu", "float32")
    assert info.weights == str(tmp_path / "my net (2).onnx")
    assert info.parameters == 16 * 3 * 9 + 16 + CLASSES * 16 + CLASSES


def test_fixed_batch_is_honoured_and_logged(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    one = load(write(tmp_path / "net.onnx", shape=(1, 3, 64, 64)), max_batch_size=8)
    assert one.scorer.max_batch_size == 1
    assert "net.onnx is fixed at 1." in caplog.text
    four = load(write(tmp_path / "net.onnx", shape=(4, 3, 64, 64)))
    assert four.scorer.max_batch_size == 4
    assert "net.onnx is fixed at 4." in caplog.text
    pixels = [one.scorer.preprocessing(photo) for photo in photographs()[:3]]
    alone = np.concatenate([one.scorer.logits([image]) for image in pixels])
    np.testing.assert_allclose(four.scorer.logits(pixels), alone, rtol=1e-5, atol=1e-5)


def test_a_large_network_runs_fewer_and_larger_batches_at_once(tmp_path, monkeypatch):
    path = write(tmp_path / "net.onnx")
    small = load(path).scorer
    monkeypatch.setattr("predictor.models.sources.onnx.LARGE", 1)
    large, chosen = load(path).scorer, load(path, max_batch_size=1).scorer
    shapes = [(one.lanes, one.max_batch_size) for one in (small, large, chosen)]
    assert shapes == [(2, 2), (1, 4), (1, 1)]


def test_metadata_describes_the_model(tmp_path):
    card = {
        "name": "flowers", "source": "timm:resnet18", "labels": [f"flower {n}" for n in range(20)],
        "input": {"resize": 72, "mean": MEAN, "std": STD},
    }  # fmt: skip
    path = write(tmp_path / "net.onnx", metadata={"predictor": json.dumps(card)})
    model = load_model(Settings(model=str(path)), 2)
    assert (model.info.name, model.labels[3].class_name) == ("flowers", "flower 3")
    assert (model.card.input.size, model.card.input.resize) == ((64, 64), 72)
    assert load(path, "name = 'other'\n[input]\nresize = 80\n").card.input.resize == 80


def test_output_is_chosen_by_name_index_or_rule(tmp_path):
    outputs = {"features": ("N", 16, 62, 62), "scores": ("N", CLASSES)}
    path = write(tmp_path / "net.onnx", outputs=outputs)
    image = np.zeros((64, 64, 3), np.uint8)
    by_rule = load(path).scorer.logits([image])
    for select in ("'scores'", 1):
        chosen = load(path, f"{TOML}[output]\nselect = {select}\n").scorer.logits([image])
        assert np.array_equal(chosen, by_rule)
    both = write(tmp_path / "net.onnx", outputs={"aux": ("N", CLASSES), "logits": ("N", CLASSES)})
    assert np.array_equal(load(both).scorer.logits([image]), by_rule)


def test_weights_in_a_second_file_are_read(tmp_path):
    write_in_two(tmp_path / "net.onnx")
    image = np.full((64, 64, 3), 99, np.uint8)
    one = load(tmp_path / "net.onnx").scorer.logits([image])
    assert np.array_equal(one, load(write(tmp_path / "whole.onnx")).scorer.logits([image]))


def test_calls_at_once_do_not_mix_images(tmp_path):
    scorer = load(write(tmp_path / "net.onnx")).scorer
    pixels = [scorer.preprocessing(photo) for photo in photographs()]
    alone = [scorer.logits([image])[0] for image in pixels]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: scorer.logits([image], 1)[0], pixels * 5))
    np.testing.assert_allclose(found, alone * 5, rtol=1e-5, atol=1e-5)


def test_onnx_file_cannot_be_explained(tmp_path):
    scorer = load(write(tmp_path / "net.onnx")).scorer
    with pytest.raises(NotExplainable, match="ONNX Runtime computes no gradients"):
        scorer.explain(np.zeros((64, 64, 3), np.uint8), None, lambda: None)


LOAD = """
import sys
from predictor.models.loading import load_model
from predictor.settings import Settings
load_model(Settings(model=sys.argv[1], resize="64", mean="0", std="1"), 1)
"""


def test_onnx_runtime_reports_nothing_and_writes_no_file(tmp_path):
    """ONNX Runtime keeps an id of the machine, and what it will report, below the home folder."""
    home, file = tmp_path / "home", write(tmp_path / "net.onnx")
    home.mkdir()
    environ = {name: text for name, text in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(file)], cwd=ROOT, capture_output=True, text=True,
        env=environ | {"HOME": str(home)}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []
