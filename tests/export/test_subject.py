"""What is exported of a model: an unchanged network, and a description that can be read back."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision

from export.own_net import Parts
from export.wrong import photos, settings
from predictor.errors import ModelError
from predictor.export.artefact import batch
from predictor.export.subject import SAMPLES, load, samples
from predictor.models.card import Card
from predictor.settings import Settings


def squeezenet(**own):
    return load(Settings(model="squeezenet1_1", **own))


def kinds(network):
    return {type(one) for one in network.modules()}


def test_network_is_contiguous_and_has_its_own_layers():
    subject = squeezenet(weights="random")
    served = subject.served.scorer.network
    assert all(one.is_contiguous() for one in subject.network.parameters())
    own = kinds(torchvision.models.squeezenet1_1())
    assert kinds(subject.network) == own
    assert kinds(served) - own  # the server has replaced some
    assert subject.network is not served
    assert not subject.network.training


def test_network_has_as_many_outputs_as_its_weights(tmp_path):
    network = torchvision.models.squeezenet1_1(num_classes=7)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    subject = squeezenet(weights=str(tmp_path / "net.pth"))
    assert subject.network(subject.example(2)).shape == (2, 7)


def test_network_answers_prepared_photos_as_the_server(small):
    data = [content for _, content in photos()]
    with torch.inference_mode():
        logits = small.network(torch.from_numpy(batch(data, small.card))).numpy()
    assert np.allclose(logits, small.answers(data).logits, atol=1e-4)


def test_description_is_read_back_without_the_folder_of_this_machine(tmp_path):
    subject = load(replace(settings(tmp_path, Parts), activation="sigmoid"))
    card = Card.from_json(json.loads(subject.description))
    assert replace(card, source=subject.card.source) == subject.card
    assert (card.output.activation, card.output.threshold) == ("sigmoid", 0.5)
    assert str(tmp_path) not in subject.description


def test_samples_have_the_size_of_a_model_that_takes_no_other(tmp_path):
    subject = load(replace(settings(tmp_path), resize="none"))
    assert subject.example(4).shape == (4, 3, 64, 64)
    assert len(samples(subject.card)) == len(SAMPLES)


@pytest.mark.skipif(torch.cuda.is_available(), reason="it runs where there is CUDA")
def test_model_that_cannot_run_without_cuda_is_refused(tmp_path):
    (tmp_path / "net.py").write_text(
        "import torch\nclass Net(torch.nn.Linear):\n"
        "    def __init__(self): super().__init__(2, 2)\n"
        "    def forward(self, images): return images.mean((2, 3)).cuda()\n"
    )
    own = settings(tmp_path)
    with pytest.raises(ModelError, match="fails on a photo.*CUDA|fails on a photo.*NVIDIA"):
        load(replace(own, model=f"{tmp_path}/net.py:Net", weights="random", labels="auto"))


def test_model_that_stands_in_for_another_is_exported_itself(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def fails(*_):
        raise OSError("offline")

    monkeypatch.setattr("predictor.models.download.download", fails)
    own = Settings(model="vgg16", fallback_model="efficientnet_lite0")
    assert load(own).name == "efficientnet_lite0"
