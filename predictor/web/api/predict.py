"""``POST /predict``: the JSON endpoint."""

from typing import Any

from flask import Blueprint, request

from predictor.engine.ranking import Prediction, as_answer
from predictor.errors import PredictorError
from predictor.web.params import whole_number
from predictor.web.problems import current_problem
from predictor.web.request import admitted, current_call, needs_slot
from predictor.web.uploads import read_upload

blueprint = Blueprint("predict", __name__)


@blueprint.route("/predict", methods=["POST", "PUT"], strict_slashes=False)
@blueprint.route("/predict/<filename>", methods=["POST", "PUT"])
@needs_slot("prediction")
def predict(filename: str = "") -> dict[str, Any]:
    """Classify one or several photos. Each of several photos gets its own answer or error.

    ``curl -T photo.jpg`` appends the file's name to a URL that ends in a slash.
    """
    with admitted() as served:
        upload, given = read_upload(request, served.settings.max_queue)
        top_k = whole_number("top_k", given)
        outcomes = served.classify(upload.images, top_k, current_call())
        threshold = served.model.card.output.threshold
    if upload.shape != "one":
        return {"results": [_result(outcome, top_k, threshold) for outcome in outcomes]}
    if isinstance(outcomes[0], PredictorError):
        raise outcomes[0]
    return as_answer(outcomes[0], top_k, threshold)


def _result(
    outcome: list[Prediction] | PredictorError, top_k: int | None, threshold: float | None
) -> dict[str, Any]:
    if isinstance(outcome, PredictorError):
        return {"error": current_problem(outcome)}
    return as_answer(outcome, top_k, threshold)
