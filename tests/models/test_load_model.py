import numpy as np
import pytest
import requests
import torch

from predictor.errors import ModelError, WeightsUnavailable
from predictor.models.devices import choose_device, choose_dtype
from predictor.models.loading import load_model
from predictor.models.sources.torchvision import find_model
from predictor.settings import Settings

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _same_threads_after_each_test():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def load_random(threads=2, **settings):
    model = load_model(Settings(model="squeezenet1_1", weights="random", **settings), threads)
    return model.scorer, model.info


def black():
    return np.zeros((224, 224, 3), np.uint8)


def test_random_weights_are_named_in_the_info():
    _, info = load_random()
    assert (info.weights, info.classes) == ("random", 1000)


def test_one_mean_is_for_all_channels_of_a_network_that_takes_colours():
    preprocessing = load_random(mean="0.4")[0].preprocessing
    assert (preprocessing.channels, preprocessing.mean) == ("RGB", (0.4, 0.4, 0.4))


@pytest.fixture
def _offline(monkeypatch, tmp_path):
    def fails(*_args, **_kwargs):
        raise requests.ConnectionError("Connection refused")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(requests, "get", fails)


@pytest.mark.usefixtures("_offline")
def test_fallback_model_replaces_one_without_weights(caplog):
    info = load_model(Settings(fallback_model="efficientnet_lite0"), 2).info
    assert (info.name, info.stands_in_for) == ("efficientnet_lite0", "vgg16")
    assert "Serving efficientnet_lite0 instead" in caplog.text


@pytest.mark.usefixtures("_offline")
def test_missing_weights_without_a_fallback_model_are_an_error():
    with pytest.raises(WeightsUnavailable):
        load_model(Settings(), 2)


def test_typo_in_the_fallback_model_is_an_error_at_every_start():
    with pytest.raises(ModelError, match="efficientnet_lite0"):
        load_random(fallback_model="efficientnet_lite")


def test_auto_device_is_the_gpu_if_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta"])
def test_unavailable_device_is_an_error_that_names_it(name):
    with pytest.raises(ModelError, match=name):
        choose_device(name)


@pytest.mark.parametrize(
    ("flag", "name", "dtype"),
    [
        ("avx512_bf16", "vgg16", torch.bfloat16),
        ("amx_bf16", "vgg16", torch.bfloat16),
        ("avx2", "vgg16", torch.float32),
        ("avx512_bf16", "efficientnet_lite0", torch.float32),
    ],
)
def test_auto_precision_depends_on_processor_and_model(tmp_path, flag, name, dtype):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: fpu {flag} sse\n")
    assert choose_dtype("auto", CPU, find_model(name).bfloat16, cpuinfo) == dtype


def test_auto_precision_is_float32_if_the_processor_is_unknown(tmp_path):
    missing = tmp_path / "cpuinfo"
    assert choose_dtype("auto", CPU, True, missing) == torch.float32


def test_int8_for_a_network_names_the_command_that_quantises():
    with pytest.raises(ModelError, match=r"never quantises.*predictor export onnx --int8"):
        load_random(precision="int8")


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_chosen_precision_is_used(precision):
    model, info = load_random(precision=precision)
    assert info.precision == precision
    logits = model.logits([black()])
    assert (logits.shape, logits.dtype) == ((1, 1000), np.float32)


@pytest.mark.parametrize(("lanes", "threads"), [(1, 1), (2, 2), (4, 4)])
def test_forward_pass_uses_the_threads_of_its_lanes(lanes, threads):
    model, info = load_random(threads=4, precision="float32")
    model.logits([black()], lanes)
    assert (model.lanes, info.threads, torch.get_num_threads()) == (4, 4, threads)


@pytest.mark.parametrize(("threads", "lanes"), [(1, 1), (2, 2), (16, 4)])
def test_each_processor_is_a_lane_up_to_four(threads, lanes):
    model, _ = load_random(threads)
    assert (model.lanes, model.max_batch_size) == (lanes, 2)
