"""Models of timm: preprocessing, labels and weights of their configuration."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from photographs import answers, assert_only_right_is_alike, prepared, spread
from predictor.errors import ModelError, StartError, WeightsUnavailable
from predictor.models.loading import load_model
from predictor.settings import Settings

timm = pytest.importorskip("timm")
IMAGENET = [label[1] for label in json.load(open("imagenet_class_index.json")).values()]


def prepare(network):
    """timm's own pipeline for the weights of a network."""
    return timm.data.create_transform(**timm.data.resolve_model_data_config(network))


def load(model, **settings):
    return load_model(Settings(model=model, **settings), 2)


@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv3_small_050.lamb_in1k",
        "dm_nfnet_f0.dm_in1k",  # squashed to more than is cut out
        "deit3_small_patch16_224.fb_in1k",  # other buffers than parameters
        "tiny_vit_5m_224.dist_in22k_ft_in1k",
        "beit_base_patch16_224.in22k_ft_in22k_in1k",  # needs memory to be built
    ],
)
def test_a_model_of_timm_answers_as_its_own_pipeline(name, tmp_path):
    torch.manual_seed(0)
    network = timm.create_model(name)
    batch = prepared(prepare(network))
    spread(network, batch)
    torch.save({"state_dict": network.state_dict(), "arch": name}, tmp_path / "last.pth.tar")
    model = load(f"timm:{name}", weights=str(tmp_path / "last.pth.tar"))
    assert_only_right_is_alike(model, answers(network, batch), IMAGENET)
    assert (model.info.name, model.card.source) == (name, f"timm:{name}")
