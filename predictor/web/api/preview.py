"""``POST /preview``: show what the model sees of a photo."""

from dataclasses import replace
from functools import partial

from flask import Blueprint, Response, request

from predictor.engine.call import all_or_error
from predictor.web.pictures import as_png
from predictor.web.request import admitted, current_call, needs_slot
from predictor.web.uploads import PREDICT_FIELDS, read_upload

blueprint = Blueprint("preview", __name__)

FIELDS = replace(PREDICT_FIELDS, parameters=())


@blueprint.route("/preview", methods=["POST", "PUT"], strict_slashes=False)
@blueprint.route("/preview/<filename>", methods=["POST", "PUT"])
@needs_slot("prediction")
def preview(filename: str = "") -> Response:
    """Return the pixels that the model is given of one photo, as a picture."""
    with admitted() as served:
        upload, _ = read_upload(request, 1, FIELDS)
        (image,) = all_or_error(upload.images)
        return served.preview(image, current_call(), partial(as_png, name="preview.png"))
