import numpy as np
import pytest
import torch

from predictor.engine.ranking import as_answer, rank
from predictor.errors import InferenceFailed
from predictor.models.card import Card
from predictor.models.labels import Label
from toy import ToyModel

LABELS = tuple(Label(f"id{i}", f"name{i}") for i in range(10))
CARD = Card("net", "net", ToyModel.preprocessing, LABELS)


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(0, 5, 10).astype(np.float32)


def test_ranking_agrees_with_torchs_softmax_and_topk(logits):
    expected = torch.softmax(torch.from_numpy(logits), 0).topk(3)
    ranked = rank(logits, CARD, 3)
    assert [p.class_index for p in ranked] == expected.indices.tolist()
    assert [p.probability for p in ranked] == pytest.approx(expected.values.tolist(), abs=1e-6)


def test_probabilities_of_large_logits_sum_to_one(logits):
    assert sum(p.probability for p in rank(logits * 1000, CARD, 10)) == pytest.approx(1)


def test_equal_logits_are_ranked_by_index():
    assert [p.class_index for p in rank(np.zeros(10, np.float32), CARD, 3)] == [0, 1, 2]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_logits_are_an_error(logits, value):
    logits[3] = value
    with pytest.raises(InferenceFailed):
        rank(logits, CARD, 1)


def test_the_answer_has_the_keys_of_the_contract_in_order(logits):
    best = rank(logits, CARD, 1)
    assert list(as_answer(best, None, None)) == ["class_id", "class_name"]
    detailed = as_answer(best, 1, None)
    assert list(detailed["predictions"][0]) == [
        "class_index",
        "class_id",
        "class_name",
        "probability",
    ]
