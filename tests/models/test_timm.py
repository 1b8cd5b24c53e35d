"""Models of timm: preprocessing, labels and weights of their configuration."""

import json
import sys

import pytest
import torch

from photographs import answers, assert_only_right_is_alike, photographs, prepared, spread
from predictor.errors import ModelError, WeightsError, WeightsUnavailable
from predictor.models.labels import load_labels
from predictor.models.loading import load_model
from predictor.settings import Settings

IMAGENET = [label.class_name for label in load_labels()]
SMALL = "mobilenetv3_small_050.lamb_in1k"


@pytest.fixture
def timm():
    return pytest.importorskip("timm")


def pipeline(timm, network):
    return timm.data.create_transform(**timm.data.resolve_model_data_config(network))


def load(model, **settings):
    return load_model(Settings(model=model, **settings), 2)


def test_a_missing_extra_is_said_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"timm is not installed.*photo-predictor\[timm\]"):
        load("timm:resnet18")


@pytest.mark.parametrize(
    "name",
    [
        SMALL,
        "tf_efficientnetv2_b3.in21k_ft_in1k",  # squashed to more than is cut out
        "tiny_vit_5m_224.dist_in22k_ft_in1k",  # has buffers that no file has
    ],
)
def test_a_model_of_timm_answers_as_its_own_pipeline(timm, name, tmp_path):
    torch.manual_seed(0)
    network = timm.create_model(name)
    batch = prepared(pipeline(timm, network))
    spread(network, batch)
    torch.save({"state_dict": network.state_dict(), "arch": name}, tmp_path / "last.pth.tar")
    model = load(f"timm:{name}", weights=str(tmp_path / "last.pth.tar"))
    assert_only_right_is_alike(model, answers(network, batch), IMAGENET)
    assert (model.info.name, model.card.source) == (name, f"timm:{name}")


@pytest.mark.parametrize("form", ["timm:local-dir:{}"])
def test_a_folder_of_timm_is_served_with_its_own_classes(timm, form, tmp_path):
    torch.manual_seed(0)
    network = timm.create_model(SMALL, num_classes=12)
    batch = prepared(pipeline(timm, network))
    spread(network, batch)
    names = [f"n{index}" for index in range(12)]
    texts = {name: f"thing {name}" for name in names}
    config = {"num_classes": 12, "label_names": names, "label_descriptions": texts}
    timm.models.save_for_hf(network, tmp_path, model_config=config)
    model = load(form.format(tmp_path))
    assert_only_right_is_alike(model, answers(network, batch), [*texts.values()])
    assert model.labels[3] == ("n3", "thing n3")


@pytest.mark.parametrize(
    ("config", "described"),
    [
        ({"crop_mode": "squash", "crop_pct": 1.0}, {"size": [224, 224], "resize": "squash"}),
        ({"crop_pct": 0.9}, {"resize": 248}),
        ({"interpolation": "bilinear"}, {"interpolation": "bilinear"}),
        ({"input_size": [3, 160, 192], "crop_mode": "squash"}, {"resize": [168, 202]}),
        ({"input_size": [1, 28, 28], "mean": [0.1], "std": [0.3]}, {"channels": "L"}),
    ],
)
def test_preprocessing_is_that_of_the_configuration(timm, config, described, tmp_path):
    folder(timm, tmp_path, config)
    said = load(f"timm:local-dir:{tmp_path}", weights="random").card.input.as_json()
    assert {key: said[key] for key in described} == described


@pytest.mark.parametrize(
    ("config", "key", "other"),
    [
        ({"interpolation": "random"}, "interpolation", {"interpolation": "bilinear"}),
        ({"crop_mode": "border"}, "resize", {"resize": "pad"}),
        ({"input_size": [3, 160, 192]}, "resize", {"resize": "squash"}),
    ],
)
def test_preprocessing_that_cannot_be_repeated_is_refused(timm, config, key, other, tmp_path):
    folder(timm, tmp_path, config)
    with pytest.raises(ModelError, match=f"input.{key} is .*it must be"):
        load(f"timm:local-dir:{tmp_path}", weights="random")
    assert getattr(load(f"timm:local-dir:{tmp_path}", weights="random", **other).card.input, key)


def folder(timm, path, config):
    """Write timm's config.json without weights."""
    channels = config.get("input_size", [3])[0]
    network = timm.create_model("resnet18", in_chans=channels)
    content = {"architecture": "resnet18", "pretrained_cfg": network.pretrained_cfg | config}
    (path / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("timm:resnet81", "timm cannot build 'resnet81'.*Did you mean resnet18"),
        ("timm:resnet18.nonsense", "timm cannot build.*nonsense"),
        ("timm:local-dir:/no/such/folder", "timm cannot build.*config.json"),
        ("timm:vit_base_patch14_dinov2.lvd142m", "has no classes"),
    ],
)
def test_a_model_that_timm_does_not_have_is_an_error(timm, model, said):
    with pytest.raises(ModelError, match=said):
        load(model)


def test_published_weights_that_cannot_be_downloaded_are_an_error(timm, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", offline)
    with pytest.raises(WeightsUnavailable, match=r"timm:mobilenetv3_small_050.*PREDICTOR_WEIGHTS"):
        load(f"timm:{SMALL}")


def offline(*_, **__):
    raise ConnectionError("Network is unreachable")


def test_published_weights_are_loaded_by_timm(timm, monkeypatch):
    torch.manual_seed(0)
    network = timm.create_model(SMALL)
    batch = prepared(pipeline(timm, network))
    spread(network, batch)
    state = network.state_dict()
    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", lambda *_, **__: state)
    model = load(f"timm:{SMALL}")
    assert_only_right_is_alike(model, answers(network, batch), IMAGENET)
    assert model.info.weights == f"timm:{SMALL}"


def test_labels_of_larger_imagenets_are_timms(timm):
    name = "convnext_nano.r384_in12k"
    labels = load(f"timm:{name}", weights="random").labels
    assert (len(labels), labels[0]) == (11821, ("n00005787", "benthos"))


def test_weights_of_another_network_are_an_error(timm, tmp_path):
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="does not hold weights of resnet18"):
        load("timm:resnet18", weights=str(tmp_path / "other.pth"))


def test_arguments_are_passed_to_timm(timm, tmp_path):
    toml = 'source = "timm:vit_tiny_patch16_224"\n[arguments]\nimg_size = 96\n[input]\nsize = 96'
    (tmp_path / "model.toml").write_text(f"{toml}\nresize = 96\n")
    model = load(str(tmp_path), weights="random")
    pixels = model.card.input(photographs()[0])
    assert model.scorer.logits([pixels], 1).shape == (1, 1000)
