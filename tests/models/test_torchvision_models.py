import pytest
import torch
import torchvision
from PIL import Image
from torchvision.models._api import WeightsEnum

from predictor.errors import ModelError
from predictor.models.building import build_empty, build_random
from predictor.models.description import input_of
from predictor.models.old_names import current_name
from predictor.models.sources.torchvision import find_model


def preprocessing_of(name):
    spec = find_model(name)
    return input_of(spec.said, spec.said, name)


def shapes(network):
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


@pytest.fixture
def torchvisions(monkeypatch):
    """Builds a network as torchvision does for its published weights, without loading them."""
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: {})
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)

    def build(name):
        with torch.device("meta"):
            return torchvision.models.get_model(name, weights="DEFAULT")

    return build


def test_vgg16_has_this_apps_own_preprocessing():
    spec = find_model("vgg16")
    assert sum(p.numel() for p in build_empty(spec.build, 1000).parameters()) == 138_357_544
    preprocessing = preprocessing_of("vgg16")
    assert (preprocessing.resize, preprocessing.size) == (255, (224, 224))
    assert spec.url.endswith("/vgg16-397923af.pth")


def test_embedded_model_has_its_weights_installed():
    assert find_model("efficientnet_lite0").packaged().is_file()


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", "inception_v3", "vit_b_16"])
def test_preprocessing_is_that_of_the_published_weights(name):
    transforms = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    preprocessing = preprocessing_of(name)
    assert [preprocessing.resize] == transforms.resize_size
    assert [*preprocessing.size] == transforms.crop_size * 2
    assert preprocessing.interpolation == Image.Resampling[transforms.interpolation.name]
    assert list(preprocessing.mean) == transforms.mean


@pytest.mark.parametrize(
    "name", ["alexnet", "densenet121", "resnet18", "swin_t", "vit_b_16", "vit_h_14"]
)
def test_network_has_the_shapes_of_the_published_weights(torchvisions, name):
    assert shapes(build_empty(find_model(name).build, 1000)) == shapes(torchvisions(name))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_inception_rescales_its_input_as_torchvision_does(torchvisions, name):
    assert torchvisions(name).transform_input
    assert build_empty(find_model(name).build, 1000).transform_input


def test_regnet_which_needs_memory_can_be_built():
    assert not build_empty(find_model("regnet_y_400mf").build, 1000).training


@pytest.mark.parametrize(
    ("published", "today"),
    [
        ("denseblock1.denselayer2.norm.1.weight", "denseblock1.denselayer2.norm1.weight"),
        ("encoder_layer_0.mlp.linear_2.bias", "encoder_layer_0.mlp.3.bias"),
        ("AuxLogits.fc.weight", None),
        ("features.norm0.weight", "features.norm0.weight"),
    ],
)  # fmt: skip
def test_old_parameter_names_are_updated(published, today):
    assert current_name(published) == today


def test_random_weights_are_repeatable_and_keep_the_rng_state():
    spec = find_model("squeezenet1_1")
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, second = build_random(spec.build, 10), build_random(spec.build, 10)
    assert torch.equal(torch.rand(1), expected)
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )


def test_every_network_is_in_eval_mode():
    spec = find_model("squeezenet1_1")
    assert not build_random(spec.build, 10).training
    assert not build_empty(spec.build, 10).training


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("resnet81", "resnet18"), ("VGG16", "vgg16"), ("efficientnet_lite", "efficientnet_lite0")],
)
def test_unknown_model_is_an_error_that_suggests_names(typo, meant):
    with pytest.raises(ModelError, match=f"{typo}.*{meant}"):
        find_model(typo)


@pytest.mark.parametrize("name", ["fcn_resnet50", "raft_small", "no such thing"])
def test_models_for_other_tasks_are_not_found(name):
    with pytest.raises(ModelError, match="no classification model"):
        find_model(name)
