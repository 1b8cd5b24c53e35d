import logging

import numpy as np
import pytest

from predictor.errors import ModelError
from predictor.models.outputs import Output, settle

PROBE = {
    "logits": [[-1.0, 2.0, 0.5], [3.0, 0.0, 1.0], [0.0, 1.0, -9.0]],
    "probabilities": [[0.2, 0.8, 0.0], [1.0, 0.0, 0.0], [0.3, 0.3, 0.4]],
    "labels": [[0.9, 0.8, 0.1], [0.0, 0.0, 0.0], [1.0, 1.0, 0.3]],
    "logit": [[-0.1], [0.3], [0.9]],
    "probability": [[0.1], [0.3], [0.9]],
}


def settled(probe, name="net", **given):
    logits = np.float32(PROBE[probe])
    return settle(given, logits.shape[1], logits, name)


@pytest.mark.parametrize(
    ("output", "logits", "expected"),
    [
        (Output(), [0, np.log(3)], [0.25, 0.75]),
        (Output(), [1000, -1000, 1000], [0.5, 0, 0.5]),
        (Output("sigmoid", 0.5), [0, np.log(3), -np.log(3)], [0.5, 0.75, 0.25]),
        (Output("sigmoid", 0.5), [-1e30, 1e30], [0, 1]),
        (Output("sigmoid"), [np.log(3)], [0.25, 0.75]),
        (Output("probabilities"), [0.2, 0.8], [0.2, 0.8]),
        (Output("probabilities"), [0.9], [0.1, 0.9]),
        (Output("probabilities"), [1.0000001, -1e-9], [1, 0]),
    ],
)
def test_logits_become_probabilities(output, logits, expected):
    found = output.probabilities(np.float32(logits))
    assert found == pytest.approx(expected, abs=1e-6)
    assert 0 <= found.min() <= found.max() <= 1
    assert output.best(np.float32(logits)) == (int(np.argmax(found)), found.max())


@pytest.mark.parametrize(
    ("output", "logits", "class_index", "expected"),
    [
        (Output(), [0, 5, 1], None, [0, 1, 0]),
        (Output(), [0, 5, 1], 2, [0, 0, 1]),
        (Output("sigmoid"), [-2], None, [-1]),
        (Output("sigmoid"), [2], None, [1]),
        (Output("sigmoid"), [2], 0, [-1]),
        (Output("probabilities"), [0.4], None, [-1]),
        (Output("probabilities"), [0.4], 1, [1]),
    ],
)
def test_one_output_is_evidence_for_class_1_and_against_class_0(
    output, logits, class_index, expected
):
    assert output.evidence(np.float32(logits), class_index).tolist() == expected


@pytest.mark.parametrize(
    ("probe", "given", "expected"),
    [
        ("logits", {}, Output("softmax")),
        ("probabilities", {}, Output("probabilities")),
        ("labels", {}, Output("softmax")),
        ("logit", {}, Output("sigmoid")),
        ("logits", {"activation": "sigmoid"}, Output("sigmoid", 0.5)),
        ("logits", {"activation": "sigmoid", "threshold": 0.3}, Output("sigmoid", 0.3)),
        ("labels", {"activation": "probabilities"}, Output("probabilities")),
        ("labels", {"activation": "probabilities", "threshold": 0.0}, Output("probabilities", 0)),
        ("probability", {"activation": "probabilities"}, Output("probabilities")),
        ("probability", {"activation": "sigmoid"}, Output("sigmoid")),
        ("logits", {"select": "out"}, Output("softmax", select="out")),
    ],
)
def test_activation_follows_from_the_outputs_if_nobody_says_it(probe, given, expected):
    assert settled(probe, **given) == expected


@pytest.mark.parametrize(("outputs", "activation"), [(1, "sigmoid"), (10, "softmax")])
def test_outputs_that_are_known_to_be_logits_need_no_probe(outputs, activation):
    assert settle({}, outputs, None, "resnet18") == Output(activation)


@pytest.mark.parametrize(
    ("probe", "given", "message"),
    [
        ("probability", {}, 'net .*from 0 to 1.*"probabilities".*"sigmoid"'),
        ("logit", {"activation": "softmax"}, "one output.*cannot be softmax"),
        ("logits", {"activation": "probabilities"}, "net .*outside 0 to 1"),
        ("logits", {"threshold": 0.5}, "softmax.*threshold.*sigmoid"),
        ("logit", {"threshold": 0.5}, "one output.*threshold"),
    ],
)
def test_an_activation_that_does_not_fit_is_an_error(probe, given, message):
    with pytest.raises(ModelError, match=message):
        settled(probe, **given)


@pytest.mark.parametrize(
    ("probe", "said"),
    [("probabilities", "net are probabilities already"), ("labels", "net .*numbers from 0 to 1")],
)
def test_what_the_outputs_seem_to_be_is_said(caplog, probe, said):
    caplog.set_level(logging.INFO)
    settled(probe)
    assert len(caplog.messages) == 1
    assert said.split(" .*")[-1] in caplog.messages[0]


def test_an_output_is_described_in_a_few_words():
    assert Output("sigmoid", 0.3).describe() == "sigmoid, labels from 0.3"
    assert Output().describe() == "softmax"
