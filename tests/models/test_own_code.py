"""Own networks: ``net.py:build`` and ``package.module:Net``."""

import sys

import numpy as np
import pytest
import torch
from torchvision import transforms as T

from models.own_code import NET, TRANSFORM, network_in
from photographs import answers, assert_only_right_is_alike, photographs, prepared, spread
from predictor.errors import LabelsError, ModelError, StartError, WeightsError
from predictor.models.loading import load_model
from predictor.settings import Settings

PREPARE = T.Compose(
    [T.Resize(72), T.CenterCrop(64), T.ToTensor(), T.Normalize([0.5] * 3, [0.25] * 3)]
)
INPUT = {"input_size": "64", "resize": "72", "mean": "0.5,0.5,0.5", "std": "0.25,0.25,0.25"}
NAMES = [f"thing {index}" for index in range(12)]


@pytest.fixture(autouse=True)
def _python_path(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in ("own_net", "ours", "ours.nets", "block", "later"):
        sys.modules.pop(name, None)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Write files into a folder, save weights, and load ``net.py:build`` there."""
    monkeypatch.chdir(tmp_path)

    def load(code, model="net.py:build", state=None, files=(), **settings):
        for name, text in {"net.py": code, **dict(files)}.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        if state is not None:
            torch.save(state, tmp_path / "net.pth")
            settings["weights"] = "net.pth"
        return load_model(Settings(model=model, **settings), 2)

    return load


def test_an_own_network_answers_as_its_own_pipeline(load):
    network, batch = network_in(), prepared(PREPARE)
    spread(network, batch)
    model = load(NET + TRANSFORM + f"\nlabels = {NAMES}", state=network.state_dict())
    assert_only_right_is_alike(model, answers(network, batch), NAMES)
    assert (model.info.name, model.info.precision, model.info.classes) == ("net", "float32", 12)


def test_arguments_of_model_toml_reach_the_class(load):
    network = network_in(num_classes=3)
    said = '[input]\nsize = 64\nresize = "squash"\nmean = [0, 0, 0]\nstd = 1'
    files = {"model.toml": f"[arguments]\nnum_classes = 3\n{said}"}
    model = load(NET, "net.py:Net", network.state_dict(), files)
    assert model.info.classes == 3
    assert [label.class_name for label in model.labels] == ["class 0", "class 1", "class 2"]
    assert model.card.input.resize == "squash"


def test_a_class_of_a_package_is_served(load):
    files = {"ours/__init__.py": "", "ours/nets.py": NET + TRANSFORM}
    model = load("", "ours.nets:Net", network_in().state_dict(), files)
    assert (model.info.name, model.info.classes) == ("Net", 12)


def test_a_file_imports_from_its_folder_also_while_the_model_runs(load):
    code = NET.replace("x.view", "__import__('later').same(x).view")
    files = {"block.py": "WIDTH = 8", "later.py": "def same(x): return x"}
    model = load("from block import WIDTH\n" + code + TRANSFORM, files=files, weights="random")
    assert model.scorer.logits([np.zeros((64, 64, 3), np.uint8)], 1).shape == (1, 12)


def test_weights_that_the_file_loads_itself_are_served(load, tmp_path):
    network, batch = network_in(), prepared(PREPARE)
    spread(network, batch)
    torch.save(network.state_dict(), tmp_path / "mine.pt")
    code = NET.replace("return Net(**arguments)", """net = Net(**arguments)
    net.load_state_dict(torch.load("mine.pt", weights_only=True))
    return net.train()""")  # fmt: skip
    model = load(code + TRANSFORM + f"\nlabels = {NAMES}")
    assert_only_right_is_alike(model, answers(network, batch), NAMES)
    assert model.info.weights == "net.py:build"


def test_random_weights_are_served_only_if_asked_for(load):
    with pytest.raises(WeightsError, match=r"conv\.weight and 3 more.*PREDICTOR_WEIGHTS"):
        load(NET + TRANSFORM)
    assert load(NET + TRANSFORM, weights="random").info.notice.startswith("The weights are random")


def test_a_network_that_stays_in_training_mode_is_set_to_eval(load):
    code = NET.replace(
        "    def forward", "    def train(self, mode=True):\n        return self\n\n    def forward"
    )
    model = load(code + TRANSFORM, weights="random")
    photos = [model.card.input(photo) for photo in photographs()[:4]]
    alone = np.concatenate([model.scorer.logits([photo], 1) for photo in photos])
    np.testing.assert_allclose(model.scorer.logits(photos, 1), alone, atol=1e-5)


def test_a_network_without_parameters_is_served(load):
    code = """
from torch import nn

class Net(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) if x.ndim == 4 else None
"""
    model = load(code, "net.py:Net", **INPUT)
    assert (model.info.parameters, model.info.classes) == (0, 3)


def test_a_description_of_the_operator_replaces_a_transform_that_cannot_be_read(load):
    code = NET + "\ndef transform(photo): return photo\n"
    with pytest.raises(ModelError, match=r"net\.py: transform has the step"):
        load(code, weights="random")
    assert load(code, weights="random", **INPUT).card.input.resize == 72


@pytest.mark.parametrize(
    ("code", "model", "said"),
    [
        (NET, "missing.py:build", "There is no file .*missing.py"),
        (NET, "net.py:biuld", "net.py has no biuld.*net.py:build"),
        (NET + "net = Net()", "net.py:net", "net.py has net, but it is a Net"),
        ("build = 3", "net.py:build", "it is a int"),
        ("import torch\nimport absent", "net.py:build", "net.py, line 2.*No module named 'absent'"),
        ("from .block import B", "net.py:build", "net.py, line 1.*relative import"),
        ("def build(:", "net.py:build", "net.py, line 1.*SyntaxError"),
        ("raise SystemExit(2)", "net.py:build", "net.py, line 1.*SystemExit: 2"),
        (TRANSFORM + "def build():\n    1 / 0", "net.py:build", "net.py, line 8.*division by zero"),
        (TRANSFORM + "def build():\n    return {}", "net.py:build", "net.py:build returned a dict"),
        (TRANSFORM + "def build(depth): ...", "net.py:build", "with no arguments.*missing"),
        (NET, "absent.nets:Net", "absent.nets:Net failed.*No module named 'absent'"),
        (NET, "net.py:build", "The input of net is not described: size, resize, mean, std"),
        (NET + "transform = 3", "net.py:build", "transform has the step 3"),
        (NET + TRANSFORM + "labels = 3", "net.py:build", "net.py: labels is 3; it must be"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_own_code_is_said_in_one_sentence(load, code, model, said):
    with pytest.raises(StartError, match=f"(?s){said}") as caught:
        load(code, model)
    assert "\n" not in str(caught.value).partition("for example:")[0]


def test_weights_of_another_number_of_classes_are_an_error(load, tmp_path):
    said = r"5 classes, but the network has 12 outputs. Correct \[arguments\] in model.toml, or"
    with pytest.raises(WeightsError, match=said):
        load(NET + TRANSFORM + f"labels = {NAMES}", state=network_in(num_classes=5).state_dict())
    (tmp_path / "labels.txt").write_text("\n".join(NAMES))
    with pytest.raises(WeightsError, match=said):
        load(NET + TRANSFORM, state=network_in(num_classes=5).state_dict(), labels="labels.txt")


def test_labels_in_the_file_must_fit_unless_they_are_imagenets(load):
    said = r"net has 12 outputs; .*net\.py: labels has 2\. Set PREDICTOR_LABELS"
    with pytest.raises(LabelsError, match=said):
        load(NET + TRANSFORM + "labels = ['cat', 'dog']", weights="random")
    model = load(NET + TRANSFORM + "labels = 'imagenet'", weights="random")
    assert (model.info.labels, model.info.classes) == ("numbers", 12)
