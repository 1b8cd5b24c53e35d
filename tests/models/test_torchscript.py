"""Each file is written as its kind is written elsewhere, and compared with the network itself."""

import logging
from contextlib import closing
from typing import Optional

import pytest
import torch
from torch import Tensor, nn

from app import create_app
from photographs import assert_only_right_is_alike
from pictures import picture
from predictor.errors import LabelsError, ModelError
from predictor.models.loading import load_model
from predictor.settings import Settings
from program_files import (
    INPUT,
    NAMES,
    SETTINGS,
    Small,
    Views,
    deprecated,
    load,
    own_answers,
    ready,
    save_script,
    scripted,
    traced,
)


class Forks(Small):
    def forward(self, images: Tensor) -> Tensor:
        future = torch.jit.fork(self.first, images)
        maps = self.second(torch.jit.wait(future)).relu()
        return self.last(nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1))


class Ignores(Small):
    @torch.jit.ignore
    def show(self, images: Tensor) -> Tensor:
        return images

    @torch.jit.unused
    def debug(self, images: Tensor) -> Tensor:
        return images

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            images = self.debug(images)
        return self.last(self.features(images))


class Asks(Small):
    def forward(self, images: Tensor) -> Tensor:
        given: Optional[Tensor] = images  # noqa: UP045
        if isinstance(given, Tensor) and torch.jit.isinstance(given, Tensor):
            images = given
        return self.last(self.features(images))


class Branches(Views):
    """Takes one of two ways. In one, it fails with images that are channels last in memory."""

    def forward(self, images: Tensor) -> Tensor:
        rows: list[Tensor] = []
        for image in images:
            if float(image.mean()) > 0.5:
                rows.append(self.last(self.features(image[None])))
            else:
                maps = self.second(self.first(image[None])).relu()
                rows.append(self.last(nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1)))
        return torch.cat(rows)


class Mixed(Small):
    """Scripted, with a traced part and a part that is only scripted when it is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.first = traced(self.first.eval())

    def forward(self, images: Tensor) -> Tensor:
        return self.last(damped(self.features(images), 3))


def _damped(features: Tensor, times: int) -> Tensor:
    for _ in range(times):
        features = features * 0.9
    return features


with deprecated():
    damped = torch.jit.script_if_tracing(_damped)


class Damped(Small):
    def forward(self, images: Tensor) -> Tensor:
        return self.last(damped(self.features(images), 2))


def frozen(network):
    with deprecated():
        return torch.jit.freeze(scripted(network))


def trace_module(network):
    with deprecated():
        return torch.jit.trace_module(network, {"forward": torch.rand(2, 3, 64, 64)})


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        pytest.param(Small, traced, id="trace"),
        pytest.param(Small, scripted, id="script"),
        pytest.param(Small, trace_module, id="trace_module"),
        pytest.param(Small, frozen, id="freeze"),
        pytest.param(Damped, traced, id="script_if_tracing"),
        pytest.param(Forks, scripted, id="fork and wait"),
        pytest.param(Ignores, scripted, id="ignore and unused"),
        pytest.param(Asks, scripted, id="isinstance"),
        pytest.param(Mixed, scripted, id="mixed"),
        pytest.param(Views, traced, id="view"),
        pytest.param(Branches, scripted, id="branches"),
    ],
)
def test_every_kind_of_torchscript_answers_as_its_network(tmp_path, kind, make):
    network = ready(kind)
    expected = own_answers(network)
    model = load(save_script(tmp_path / "net.pt", make(network)))
    assert_only_right_is_alike(model, expected, NAMES)


def test_program_for_one_image_runs_one_at_once_and_the_log_says_so(tmp_path, caplog):
    class One(Small):
        def features(self, images: Tensor) -> Tensor:
            return super().features(images).view(1, 256)

    network = ready(One)
    with caplog.at_level(logging.INFO):
        model = load(save_script(tmp_path / "net.pt", traced(network)), max_batch_size=8)
    assert model.scorer.max_batch_size == 1
    assert "net.pt takes 1 image(s) at once, because 2 fail" in caplog.text


class Four(Small):
    def features(self, images: Tensor) -> Tensor:
        return super().features(images).view(4, 256)


class Two(Small):
    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        return self.last(self.features(images + others))


class Maps(Small):
    def forward(self, images: Tensor) -> Tensor:
        return self.first(images)


class Sums(Small):
    """Returns one row for all images."""

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.features(images)).sum(0, keepdim=True)


class Drops(Small):
    def features(self, images: Tensor) -> Tensor:
        return nn.functional.dropout(super().features(images), training=self.training)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: traced(Four().eval(), 4), r"shape \[1, 3, 64, 64\].* saved with .*\[4, 3"),
        (lambda: scripted(Two()), "missing value for argument 'others'"),
        (lambda: traced(Maps().eval()), r"returns \(1, 8, 31, 31\).*select"),
        (lambda: traced(Drops().train(), check_trace=False), r"net\.eval\(\)"),
        (lambda: scripted(nn.Conv2d(1, 9, 64)), "input.* to have 1 channels, but got 3"),
    ],
    ids=["for four images", "two inputs", "feature maps", "training mode", "grey"],
)  # fmt: skip
def test_program_that_cannot_be_served_says_why(tmp_path, make, message):
    path = save_script(tmp_path / "net.pt", make())
    with pytest.raises(ModelError, match=message) as raised:
        load(path)
    assert path in str(raised.value)


def test_program_that_mixes_images_runs_one_at_once(tmp_path):
    model = load(save_script(tmp_path / "net.pt", traced(Sums().eval())), max_batch_size=4)
    assert model.scorer.max_batch_size == 1


def test_damaged_program_says_so(tmp_path):
    path = tmp_path / "net.pt"
    save_script(path, traced(Small().eval()))
    path.write_bytes(path.read_bytes().replace(b"code/__torch__", b"code/__trash__"))
    with pytest.raises(ModelError, match=r"net\.pt cannot be loaded by torch 2.*Save it again"):
        load(str(path))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("make", [traced, frozen])
def test_program_keeps_its_precision(tmp_path, make, dtype):
    with deprecated():
        program = torch.jit.script(Small().eval().to(dtype))
        program = program if make is traced else torch.jit.freeze(program)
    info = load(save_script(tmp_path / "net.pt", program)).info
    assert (info.precision, info.parameters > 10_000) == (str(dtype).removeprefix("torch."), True)


def test_another_precision_is_refused(tmp_path):
    path = save_script(tmp_path / "net.pt", traced(Small().eval()))
    assert load(path, precision="float32").info.precision == "float32"
    with pytest.raises(ModelError, match="PREDICTOR_PRECISION is bfloat16.* a program for float32"):
        load(path, precision="bfloat16")


class Tuple_(Small):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(images)
        return features, self.last(features)


def test_logits_are_selected_among_what_a_program_returns(tmp_path):
    network = ready()
    twin = Tuple_().eval()
    twin.load_state_dict(network.state_dict())
    path = save_script(tmp_path / "net.pt", scripted(twin))
    with pytest.raises(ModelError, match="select"):
        load(path)
    (tmp_path / "model.toml").write_text('weights = "net.pt"\n[output]\nselect = 1')
    assert_only_right_is_alike(load(path), own_answers(network), NAMES)


def test_size_is_that_of_the_traced_example(tmp_path):
    path = save_script(tmp_path / "net.pt", traced(Small().eval()))
    card = load_model(Settings(model=path, resize="72", mean="0.5,0.5,0.5", std="1,1,1"), 2).card
    assert (card.input.size, card.input.channels) == ((64, 64), "RGB")
    with pytest.raises(ModelError, match="resize, mean, std missing"):
        load_model(Settings(model=path), 2)
    path = save_script(tmp_path / "script.pt", scripted(Small()))
    with pytest.raises(ModelError, match="size, resize, mean, std missing"):
        load_model(Settings(model=path), 2)


CARD = {"name": "mine", "labels": [f"kind {n}" for n in range(20)], "input": INPUT}


def test_description_in_the_file_is_used_and_model_toml_overrides_it(tmp_path):
    network = ready()
    path = save_script(tmp_path / "net.pt", traced(network), **CARD, trust=True, source="a.py:b")
    model = load_model(Settings(model=path), 2)
    assert model.info.name == "mine"
    assert_only_right_is_alike(model, own_answers(network), CARD["labels"])
    (tmp_path / "model.toml").write_text('weights = "net.pt"\nname = "other"\n[input]\nstd = 0.5')
    card = load_model(Settings(model=path), 2).card
    assert (card.name, card.input.std, card.labels[3].class_name) == ("other", (0.5,) * 3, "kind 3")


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"input": INPUT | {"size": "big"}}, "net.pt, predictor: input.size is 'big'; it must be"),
        ({"inputs": INPUT}, "net.pt, predictor: there is no key inputs"),
        ({"labels": "missing.txt"}, "missing.txt"),
        ({"labels": ["one"]}, "net has 20 outputs; .*net.pt, predictor: labels has 1"),
    ],
)
def test_invalid_description_in_the_file_is_an_error(tmp_path, card, message):
    path = save_script(tmp_path / "net.pt", traced(Small().eval()), **card)
    with pytest.raises((ModelError, LabelsError), match=message):
        load(path)


def test_program_answers_over_http_without_explanations(tmp_path):
    path = save_script(tmp_path / "net.pt", traced(Small().eval()))
    app = create_app(Settings(model=path, **SETTINGS))
    store = app.extensions["predictor"]
    store.start()
    store.loading.result(timeout=60)
    with closing(store):
        response = app.test_client().post("/predict", data=picture())
        assert response.get_json()["class_name"] in NAMES
        response = app.test_client().post("/explain", data=picture())
        assert (response.status_code, "network and weights" in response.text) == (501, True)


def test_weights_beside_a_program_are_refused(tmp_path):
    path = save_script(tmp_path / "net.pt", traced(Small().eval()))
    with pytest.raises(ModelError, match="has its own weights. Remove PREDICTOR_WEIGHTS"):
        load(path, weights="random")
