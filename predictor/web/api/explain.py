"""``POST /explain``: show which parts of a photo support a class."""

from dataclasses import replace
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response, jsonify, request

from predictor.engine.call import all_or_error
from predictor.engine.explainer import Explanation
from predictor.errors import BadRequest
from predictor.images.heatmap import paint
from predictor.web.params import quoted, whole_number
from predictor.web.pictures import as_png
from predictor.web.request import admitted, current_call, needs_slot
from predictor.web.uploads import PREDICT_FIELDS, read_upload

blueprint = Blueprint("explain", __name__)

FIELDS = replace(PREDICT_FIELDS, parameters=("class_index", "format"))
FORMATS = {"png": "image/png", "json": "application/json"}
# What the picture explains. Names and ids are percent-encoded UTF-8.
PREDICTION_HEADERS = {
    "class_index": "X-Class-Index",
    "class_id": "X-Class-Id",
    "class_name": "X-Class-Name",
    "probability": "X-Probability",
}


@blueprint.route("/explain", methods=["POST", "PUT"], strict_slashes=False)
@blueprint.route("/explain/<filename>", methods=["POST", "PUT"])
@needs_slot("explanation")
def explain(filename: str = "") -> Response:
    """Explain one class of one photo, as a picture or as numbers."""
    with admitted() as served:
        upload, given = read_upload(request, 1, FIELDS)
        class_index, chosen = whole_number("class_index", given), _format(given.get("format"))
        (image,) = all_or_error(upload.images)
        explanation = served.explain(image, class_index, current_call())
        response = _picture(explanation) if chosen == "png" else jsonify(explanation.as_numbers())
    response.vary.add("Accept")
    return response


def _format(given: Any) -> str:
    """Return ``png`` or ``json``: the parameter, or what the ``Accept`` header prefers."""
    if given is None:
        best = request.accept_mimetypes.best_match(FORMATS.values(), default=FORMATS["png"])
        return next(name for name, mimetype in FORMATS.items() if mimetype == best)
    if given not in [*FORMATS]:
        raise BadRequest(f"format is {quoted(given)}; it must be {' or '.join(FORMATS)}.")
    return str(given)


def _picture(explanation: Explanation) -> Response:
    picture = paint(explanation.photo, explanation.heat, explanation.box)
    name = f"class-{explanation.prediction.class_index}.png"  # a class name may not be ASCII
    response = as_png(picture, name)
    for field, value in explanation.prediction._asdict().items():
        response.headers[PREDICTION_HEADERS[field]] = quote(str(value))
    return response
