"""docs/your-model.md: its own code and settings serve the network that was trained.

The sections on ONNX, TorchScript and torch.export are tested beside their sources.
"""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision
from flask import Flask
from torchvision import transforms as T

from paths import ROOT
from photographs import answers, assert_only_right_is_alike, prepared, spread
from predictor.cli import main
from predictor.models import loading, reference
from predictor.models.description import KEYS, SETTINGS
from predictor.models.loading import load_model
from predictor.settings import PREFIX, Settings

TEXT = (ROOT / "docs" / "your-model.md").read_text()
NAMES = [f"flower {index}" for index in range(20)]
IMAGENET = T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALF = T.Normalize([0.5] * 3, [0.25] * 3)
PREPARE = T.Compose([T.Resize(256), T.CenterCrop(224), T.ToTensor(), IMAGENET])
SQUASH = T.Compose([T.Resize((160, 160)), T.ToTensor(), HALF])
CUT = T.Compose([T.Resize(176), T.CenterCrop(160), T.ToTensor(), HALF])


def section(title):
    return TEXT.split(f"## {title}\n")[1].split("\n## ")[0]


def blocks(title, language):
    return re.findall(rf"```{language}\n(.*?)```", section(title), re.DOTALL)


@pytest.fixture
def served(tmp_path, monkeypatch, forget_modules):
    """Returns the model that this folder serves with the settings in a text."""
    monkeypatch.chdir(tmp_path)

    def served(text):
        for name, value in re.findall(r"(PREDICTOR_\w+)=([^\s`]+)", text):
            monkeypatch.setenv(name, value)
        return load_model(Settings.from_env(), 2)

    return served


def trained(network, prepare):
    """The network after its training, and its own logits of the photographs."""
    torch.manual_seed(0)
    batch = prepared(prepare)
    spread(network, batch)
    return network.eval(), answers(network, batch)


def run(code, network):
    names = {"torch": torch, "Path": Path, "net": network, "transform": CUT}
    names["dataset"] = SimpleNamespace(classes=NAMES)
    exec(code, names)
    return names


def mobilenet():
    torch.manual_seed(0)
    return torchvision.models.mobilenet_v3_small(num_classes=20)


def test_own_weights_of_torchvision_answer_as_their_network(served):
    network, logits = trained(mobilenet(), PREPARE)
    run(blocks("Own weights of torchvision", "python")[0], network)
    model = served(blocks("Own weights of torchvision", "sh")[0])
    assert_only_right_is_alike(model, logits, NAMES)


def test_folder_with_model_toml_answers_as_its_network(served, tmp_path):
    network, logits = trained(mobilenet(), SQUASH)
    run(blocks("Own weights of torchvision", "python")[0], network)
    (tmp_path / "model.toml").write_text(blocks("Own weights of torchvision", "toml")[0])
    model = served(section("Own weights of torchvision").split("```sh")[1].split("```", 1)[1])
    assert_only_right_is_alike(model, logits, NAMES)


def test_published_weights_bring_their_preprocessing():
    text = section("Published weights")
    models = re.findall(r"PREDICTOR_MODEL=([\w@.-]+)", text)
    assert len(models) == 2
    asked, where = loading.ask(Settings(model=models[0]), 2)
    assert loading.find(asked, where).said["input.resize"].value == 256  # of V2 it is 232
    weights = torchvision.models.ResNet50_Weights[models[0].partition("@")[2]]
    assert weights.url.endswith(models[1])


def test_own_weights_of_timm_answer_as_their_network(served):
    timm = pytest.importorskip("timm")
    network = timm.create_model("mobilenetv3_small_050.lamb_in1k", num_classes=20)
    config = timm.data.resolve_model_data_config(network)
    network, logits = trained(network, timm.data.create_transform(**config))
    run(blocks("timm", "python")[0], network)
    assert_only_right_is_alike(served(blocks("timm", "sh")[0]), logits, NAMES)


def test_own_class_answers_as_its_network(served, tmp_path):
    code, save = blocks("Your own class", "python")
    (tmp_path / "labels.txt").write_text("\n".join(NAMES))
    (tmp_path / "net.py").write_text(code)
    (tmp_path / "model.toml").write_text(blocks("Your own class", "toml")[0])
    names = run(code, None)
    torch.manual_seed(0)
    network, logits = trained(names["build"](20), names["transform"])
    run(save, network)
    assert_only_right_is_alike(served(blocks("Your own class", "sh")[0]), logits, NAMES)


def test_network_in_memory_answers_as_itself(monkeypatch):
    monkeypatch.setattr(Flask, "run", lambda _: None)
    network, logits = trained(mobilenet(), CUT)
    app = run(blocks("In memory", "python")[0], network)["app"]
    store = app.extensions["predictor"]
    store.start()
    try:
        store.loading.result(timeout=60)
        assert_only_right_is_alike(store.default.model, logits, NAMES)
    finally:
        store.close()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_converted_model_answers_as_its_network(served, tmp_path):
    network, logits = trained(mobilenet(), CUT)
    run(blocks("Whole models and archives", "python")[0], network)
    (tmp_path / "labels.txt").write_text("\n".join(NAMES))
    shell = blocks("Whole models and archives", "sh")[0]
    assert main(shell.partition("#")[0].split()[1:]) == 0
    with (tmp_path / "flowers" / "model.toml").open("a") as file:
        file.write('labels = "../labels.txt"\n' + blocks("Whole models and archives", "toml")[0])
    assert_only_right_is_alike(served(shell), logits, NAMES)


def rows(title):
    """The cells of each row of a section's table."""
    found = re.findall(r"^\| (.*) \|$", section(title), re.MULTILINE)
    return [[cell.strip() for cell in row.split(" | ")] for row in found[1:]]


def test_every_key_of_model_toml_is_in_the_table_with_its_setting():
    table = {}
    for keys, _, *settings in rows("model.toml"):
        named = re.findall(r"`(\w+)`", "".join(settings)) or [None] * 9
        table |= dict(zip(re.findall(r"`([\w.]+)`", keys), named, strict=False))
    assert table == {
        key: f"{PREFIX}{SETTINGS[key].upper()}" if key in SETTINGS else None for key in KEYS
    }


def test_accepted_values_of_model_toml_are_accepted():
    checked = 0
    for keys, accepted, *_ in rows("model.toml"):
        for key in re.findall(r"`([\w.]+)`", keys):
            for value in re.findall(r"`(\"[^\"`]+\"|[\d.]+|true|false)`", accepted):
                KEYS[key](json.loads(value))
                checked += 1
    assert checked > 25


def test_the_grammar_of_predictor_model_is_the_one_in_the_code():
    sources = {
        text: reference.parse(text).source
        for cells in rows("PREDICTOR_MODEL")
        for text in re.findall(r"`([\w:.@]+)`", cells[0])
    }
    assert sources == {
        "timm:NAME": "timm", "torchvision:NAME": "torchvision", "net.py:build": "code",
        "package.module:Net": "code", "resnet50": "torchvision",
        "resnet50@IMAGENET1K_V1": "torchvision",
    }  # fmt: skip


@pytest.mark.parametrize(
    "message", [cells[0].strip("`") for cells in rows("Errors that you may see")]
)
def test_every_error_named_is_in_the_code(message):
    code = "".join(path.read_text() for path in (ROOT / "predictor" / "models").rglob("*.py"))
    assert message in re.sub(r'"\s+f?"', "", code)
