"""``POST /explain``: where in the photo the evidence for a class lies."""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import Any

from flask import Blueprint, Flask, Response, jsonify, request

from predictor.engine.classifier import Classifier
from predictor.engine.explainer import Explainer, Explanation
from predictor.errors import BadRequest, RequestError
from predictor.images.heatmap import paint
from predictor.web import service as inference
from predictor.web.api.predict import parameter, whole_number
from predictor.web.uploads import read_upload

blueprint = Blueprint("explain", __name__)

FORMATS = {"png": "image/png", "json": "application/json"}
SPEED = 1  # of the PNG's compression: 6 takes three times as long, for a sixth less


def register(app: Flask, classifier: Classifier) -> None:
    """Serve explanations."""
    app.extensions["explainer"] = Explainer(classifier)
    app.register_blueprint(blueprint)


@blueprint.route("/explain", methods=["POST", "PUT"], strict_slashes=False)
def explain() -> Response:
    """Explain one class of the photo sent: a picture, or the numbers."""
    with inference.admit_explanation():
        class_index, wanted = whole_number("class_index"), _format()
        (image,) = read_upload(request, max_images=1).images
        if isinstance(image, RequestError):
            raise image
        explanation = inference.explain(image, class_index)
        response = _picture(explanation) if wanted == "png" else jsonify(as_numbers(explanation))
    response.vary.add("Accept")
    return response


def _format() -> str:
    """``png`` or ``json``, by the parameter, else by what the client would rather have."""
    given = parameter("format")
    if given is None:
        best = request.accept_mimetypes.best_match(FORMATS.values(), default=FORMATS["png"])
        return next(name for name, mimetype in FORMATS.items() if mimetype == best)
    if given not in FORMATS:
        raise BadRequest(f"format is {given!r}; it can be {' or '.join(FORMATS)}.")
    return given


def _picture(explanation: Explanation) -> Response:
    png = io.BytesIO()
    paint(explanation).save(png, "PNG", compress_level=SPEED)
    response = Response(png.getvalue(), mimetype=FORMATS["png"])
    name = f"class-{explanation.prediction.class_index}.png"  # what it is called need not be ASCII
    response.headers.set("Content-Disposition", "inline", filename=name)
    return response


def as_numbers(explanation: Explanation) -> dict[str, Any]:
    """What a program is told about why."""
    heat = [[round(float(value), 4) for value in row] for row in explanation.heat]
    return asdict(explanation.prediction) | {"box": explanation.box, "heat": heat}
