import json

import pytest

from predictor.errors import ModelError
from predictor.images.preprocessing import Interpolation, Preprocessing
from predictor.models.card import Card
from predictor.models.description import describe, input_of, table
from predictor.models.labels import Label, load_labels, numbered
from predictor.models.outputs import Output

RGB = Preprocessing(
    (160, 320), 192, Interpolation.BICUBIC, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
)
GREY = Preprocessing((28, 28), "none", Interpolation.NEAREST, (0.1307,), (0.3081,), "L")
BGR = Preprocessing(
    (64, 64), "pad", Interpolation.LANCZOS, (103.9, 116.8, 123.7), (1,) * 3, "BGR", "0..255"
)
CARDS = [
    Card("net", "torchvision:resnet18@IMAGENET1K_V1", RGB, numbered(10)),
    Card("digits", "net.py:build", GREY, numbered(10), Output("probabilities"), "2"),
    Card("faults", "package.module:Net", BGR, (Label("OK", "good"), Label("NG", "schlecht – ß")),
         Output("sigmoid", 0.25, "logits"), "2026-11"),
    Card("pair", "pair.onnx", RGB, numbered(2), Output("sigmoid", select=1)),
]  # fmt: skip


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_description_has_all_that_a_card_says(card):
    said = describe(json.loads(json.dumps(card.as_json())), "net.onnx")
    assert said["name"] == (card.name, "net.onnx: name")
    assert (said["version"].value, said["source"].value) == (card.version, card.source)
    assert input_of(said, {}, "net") == card.input
    assert Output(**table(said, "output")) == card.output
    assert load_labels(said["labels"].value) == card.labels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "net.onnx: labels"),
        ({"colour": "red"}, "net.onnx: there is no key colour"),
        ({"input": RGB.as_json() | {"std": [1, 0, 1]}}, "std"),
        ({"output": {"activation": "tanh"}}, "output.activation is 'tanh'"),
    ],
)
def test_an_invalid_card_is_an_error_that_names_the_key(change, message):
    with pytest.raises(ModelError, match=message):
        input_of(describe(CARDS[0].as_json() | change, "net.onnx"), {}, "net")
