"""``POST /predict``: the JSON endpoint."""

from __future__ import annotations

import re
from typing import Any

from flask import Blueprint, request

from predictor.engine.ranking import Prediction, as_answer
from predictor.errors import BadRequest, PredictorError
from predictor.web.current import current_classifier
from predictor.web.problems import describe
from predictor.web.service import classify
from predictor.web.uploads import read_upload

blueprint = Blueprint("predict", __name__)


@blueprint.route("/predict", methods=["POST", "PUT"], strict_slashes=False)
def predict() -> dict[str, Any]:
    """Classify the photo sent, or several: each has its own answer or its own error."""
    classifier = current_classifier()
    with classifier.admit():
        top_k = whole_number("top_k")
        upload = read_upload(request, classifier.settings.max_queue)
        outcomes = classify(upload.images, 1 if top_k is None else top_k)
    if upload.several:
        return {"results": [_result(outcome, top_k) for outcome in outcomes]}
    if isinstance(outcomes[0], PredictorError):
        raise outcomes[0]
    return as_answer(outcomes[0], detailed=top_k is not None)


def parameter(name: str) -> str | None:
    """A parameter of the query, where it is given.

    Raises:
        BadRequest: it is given more than once, and nobody knows which is meant.
    """
    given = request.args.getlist(name)
    if len(given) > 1:
        raise BadRequest(f"{name} is given {len(given)} times; once is wanted.")
    return given[0] if given else None


def whole_number(name: str) -> int | None:
    """A parameter of the query, where it is given; whether it is in range is said later.

    Raises:
        BadRequest: it is no whole number, or given more than once.
    """
    text = parameter(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise BadRequest(f"{name} is {text!r}; a whole number is wanted.")
    return int(text)


def _result(outcome: list[Prediction] | PredictorError, top_k: int | None) -> dict[str, Any]:
    if isinstance(outcome, PredictorError):
        return {"error": describe(outcome)}
    return as_answer(outcome, detailed=top_k is not None)
