"""Logits → predictions, best first."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from predictor.errors import InferenceFailed
from predictor.models.card import Card


class Prediction(NamedTuple):
    """One class and its probability, 0 to 1."""

    class_index: int
    class_id: str
    class_name: str
    probability: float


def rank(logits: NDArray[np.float32], card: Card, top_k: int | None) -> list[Prediction]:
    """Return the ``top_k`` most probable classes, best first, ties in order of class index.

    None: the best class; if several labels can be right, also all others from the threshold on.

    ``logits`` are ``(outputs,)`` float32. If the model has fewer classes than ``top_k``, return
    all.

    Raises:
        InferenceFailed: a logit is infinite or not a number.
    """
    probabilities, labels = card.output.probabilities(finite(logits)), card.labels
    if top_k is None:
        least = card.output.threshold
        top_k = 1 if least is None else max(1, int((probabilities >= least).sum()))
    if top_k == 1:  # to sort 1,000 classes takes 50 µs
        best = [int(probabilities.argmax())]
    else:
        best = np.argsort(-probabilities, kind="stable")[:top_k].tolist()
    return [
        Prediction(i, labels[i].class_id, labels[i].class_name, probability)
        for i, probability in zip(best, probabilities[best].tolist(), strict=True)
    ]


def finite(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits; raise InferenceFailed if one is infinite or not a number."""
    if not np.isfinite(logits).all():
        raise InferenceFailed("The model's output for this image contains NaN or infinity.")
    return logits


def by_label(ranked: Sequence[Prediction]) -> dict[str, float]:
    """Return probabilities by label. If two classes share a label, the second label gets its id."""
    answer: dict[str, float] = {}
    for one in ranked:
        taken = one.class_name in answer
        label = f"{one.class_name} ({one.class_id})" if taken else one.class_name
        answer[label] = one.probability
    return answer


def as_answer(
    predictions: Sequence[Prediction], top_k: int | None, threshold: float | None
) -> dict[str, Any]:
    """Return the JSON answer for one image: the best class, and which predictions were asked for.

    Without ``top_k``, these are all from the ``threshold`` on; without both, there are none.
    """
    best = predictions[0]
    answer: dict[str, Any] = {"class_id": best.class_id, "class_name": best.class_name}
    least = threshold if top_k is None else 0
    if least is not None:
        answer["predictions"] = [p._asdict() for p in predictions if p.probability >= least]
    return answer
