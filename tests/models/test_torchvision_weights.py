"""Published and own weights of torchvision's models, against torchvision's own pipeline."""

import pytest
import torch
import torchvision

from photographs import answers, assert_only_right_is_alike, photographs, prepared, spread
from predictor.errors import ModelError
from predictor.models.labels import load_labels
from predictor.models.loading import load_model
from predictor.settings import Settings

IMAGENET = [label.class_name for label in load_labels()]


def calibrated(weights, **arguments):
    """An untrained network, spread with the transforms of published weights; and its logits."""
    name = weights.__class__.__name__.removesuffix("_Weights").lower()
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, **arguments)
    batch = prepared(weights.transforms())
    spread(network, batch)
    return network.state_dict(), answers(network, batch)


def load(model, **settings):
    return load_model(Settings(model=model, **settings), 2)


@pytest.mark.parametrize(
    ("model", "file", "tag"),
    [
        ("mobilenet_v2", "own.pth", "IMAGENET1K_V2"),
        ("mobilenet_v2@IMAGENET1K_V1", "own.pth", "IMAGENET1K_V1"),
        ("mobilenet_v2", "mobilenet_v2-b0353104.pth", "IMAGENET1K_V1"),
        ("{}/mobilenet_v2-b0353104.pth", None, "IMAGENET1K_V1"),
    ],
)
def test_a_torchvision_model_answers_as_its_own_pipeline(tmp_path, model, file, tag):
    weights = torchvision.models.MobileNet_V2_Weights[tag]
    state, logits = calibrated(weights)
    torch.save(state, tmp_path / (file or model.rpartition("/")[2]))
    settings = {"weights": str(tmp_path / file)} if file else {}
    served = load(model.format(tmp_path), **settings)
    assert_only_right_is_alike(served, logits, IMAGENET)
    assert [served.card.input.resize] == weights.transforms().resize_size


def test_the_classes_of_a_fine_tuned_file_are_counted(tmp_path):
    weights = torchvision.models.MobileNet_V2_Weights.DEFAULT
    state, logits = calibrated(weights, num_classes=50)
    torch.save(state, tmp_path / "flowers.pth")
    served = load("mobilenet_v2", weights=str(tmp_path / "flowers.pth"))
    assert_only_right_is_alike(served, logits, [f"class {index}" for index in range(50)])


def test_weights_of_another_size_build_a_network_of_that_size(tmp_path):
    model = load("vit_b_16@IMAGENET1K_SWAG_E2E_V1", weights="random")
    assert model.card.input.size == (384, 384)
    assert model.scorer.logits([model.card.input(photographs()[0])], 1).shape == (1, 1000)


def test_unknown_published_weights_are_an_error_that_lists_the_known():
    with pytest.raises(ModelError, match="IMAGENET1K_V3.*It has IMAGENET1K_V1, IMAGENET1K_V2"):
        load("resnet50@IMAGENET1K_V3")
