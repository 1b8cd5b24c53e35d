"""``create_app(model=net, …)``: a network in memory, as a notebook has it."""

import io

import pytest
import torch
from torch import nn
from torchvision import transforms as T

from models.own_code import network_in
from photographs import answers, assert_only_right_is_alike, photographs, prepared, spread
from pictures import encode
from predictor import Settings, create_app
from predictor.errors import ModelError, StartError

NAMES = [f"thing {index}" for index in range(12)]
PREPARE = T.Compose(
    [T.Resize(72), T.CenterCrop(64), T.ToTensor(), T.Normalize([0.5] * 3, [0.25] * 3)]
)


@pytest.fixture
def serve():
    """Make an app around a network, and return it with its loaded model."""
    made = []

    def serve(network, **arguments):
        app = create_app(network, **arguments)
        store = app.extensions["predictor"]
        made.append(store)
        store.start()
        store.loading.result(timeout=60)
        return app, store.default.model

    yield serve
    for store in made:
        store.close()


def test_a_network_in_memory_answers_as_its_own_pipeline(serve):
    network, batch = network_in(), prepared(PREPARE)
    spread(network, batch)
    app, model = serve(network, labels=NAMES, transform=PREPARE)
    logits = answers(network, batch)
    assert_only_right_is_alike(model, logits, NAMES)
    photo = encode(photographs()[0])
    answer = app.test_client().post("/predict", data={"file": (io.BytesIO(photo), "a.png")})
    assert answer.json["class_name"] == NAMES[logits[0].argmax()]


def test_the_network_itself_is_not_changed_and_may_be_trained_further(serve):
    network, batch = network_in().double().train(), prepared(PREPARE)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    _, model = serve(network, labels=NAMES, transform=PREPARE)
    pixels = [model.card.input(photographs()[0])]
    first = model.scorer.logits(pixels, 1)
    assert network.training
    assert all(p.requires_grad and p.dtype == torch.double for p in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    network(batch.double()).sum().backward()
    torch.optim.SGD(network.parameters(), 1.0).step()
    assert (model.scorer.logits(pixels, 1) == first).all()


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["parallel", "compiled"])
def test_wrappers_of_training_are_taken_off(serve, wrap):
    _, model = serve(wrap(network_in()), transform=PREPARE)
    assert (model.info.name, len(model.labels)) == ("Net", 12)


@pytest.mark.parametrize(
    ("model", "arguments", "said"),
    [
        (None, {}, "model is a NoneType; it must be a torch.nn.Module"),
        (network_in().state_dict(), {}, "model is a OrderedDict"),
        (network_in(), {}, "The input of Net is not described"),
        (network_in(), {"transform": T.RandomCrop(3)}, "RandomCrop.*random"),
        (network_in(), {"transform": PREPARE, "labels": 3}, "create_app: labels is 3"),
        (network_in(), {"transform": PREPARE, "labels": ["a", ""]}, "index 1"),
        (
            network_in(),
            {"transform": PREPARE, "settings": Settings(weights="net.pth")},
            "Remove PREDICTOR_WEIGHTS",
        ),
        (
            network_in(),
            {"transform": PREPARE, "settings": Settings(mean="0,0,0")},
            "create_app.*PREDICTOR_MEAN",
        ),
    ],
)
def test_what_cannot_be_served_is_an_error_at_once(model, arguments, said):
    with pytest.raises(StartError, match=said):
        create_app(model, **arguments)


def test_a_network_that_cannot_be_copied_is_an_error():
    network = nn.Sequential(nn.Flatten())
    network.kept = (torch.ones(1, requires_grad=True) * 2,)  # as Grad-CAM's hooks keep activations
    with pytest.raises(ModelError, match="cannot be copied"):
        create_app(network, transform=PREPARE)
