"""Version 1 of KServe's protocol, which is also TensorFlow Serving's."""

from dataclasses import replace
from typing import Any

from flask import Blueprint, Response, jsonify, request
from werkzeug.routing import BaseConverter

from predictor.engine.call import all_or_error
from predictor.engine.ranking import as_answer
from predictor.errors import BadRequest
from predictor.web.choosing import Chosen, Fields, from_instances, targets_in
from predictor.web.json_body import parse_json
from predictor.web.params import (
    as_target,
    known_among,
    parameters,
    parameters_of,
    top_k_of,
    whole_number,
)
from predictor.web.problems import Problem
from predictor.web.request import (
    admitted,
    by_path,
    current_call,
    current_store,
    needs_slot,
    parsing,
    resolve,
)
from predictor.web.uploads import form_or_image, read_body

PREFIXES = ("/v1",)
FIELDS = Fields(
    ("file", "image", "data", "body"),
    json='{"instances": [{"b64": "<base64>"}]}',
    parameters=("top_k",),
)
EXPLAIN_FIELDS = replace(FIELDS, parameters=("class_index",))
blueprint = Blueprint("kserve", __name__, url_prefix="/v1")
explanations = Blueprint("kserve_explanations", __name__, url_prefix="/v1")


def as_error(problem: Problem) -> Response:
    """Return an error in the shape that KServe's clients read."""
    return jsonify({"error": problem["detail"]})


class NameBeforeVerb(BaseConverter):
    """Matches a name in a path, up to ``:predict`` or ``:explain``."""

    regex = "[^/:]+"


blueprint.record(lambda state: state.app.url_map.converters.update(name=NameBeforeVerb))


@blueprint.get("/models")
def models() -> dict[str, Any]:
    """Return the names of the served models."""
    return {"models": current_store().names()}


@blueprint.get("/models/<name:model>")
@blueprint.get("/models/<name:model>/versions/<name:version>")
def model_ready(model: str, version: str | None = None) -> dict[str, Any]:
    """Answer 200 if the model is ready. The JSON has the keys of KServe and TensorFlow Serving."""
    served = resolve(model, version)
    current_store().expect_ready()
    status = {"error_code": "OK", "error_message": ""}
    available = {"version": str(served.version), "state": "AVAILABLE", "status": status}
    return {"name": model, "ready": True, "model_version_status": [available]}


@blueprint.post("/models/<name:model>:predict")
@blueprint.post("/models/<name:model>/versions/<name:version>:predict")
@needs_slot("prediction", by_path)
def predict(model: str, version: str | None = None) -> dict[str, Any]:
    """Classify the photo of each instance, with the answers of ``POST /predict?top_k=5``."""
    with admitted() as served:
        upload, given = _read(served.settings.max_queue, FIELDS)
        top_k = top_k_of(given, served.model)
        images = all_or_error(upload.images)
        ranked = all_or_error(served.classify(images, top_k, current_call()))
        threshold = served.model.card.output.threshold
    return {"predictions": [as_answer(one, top_k, threshold) for one in ranked]}


@explanations.post("/models/<name:model>:explain")
@explanations.post("/models/<name:model>/versions/<name:version>:explain")
@needs_slot("explanation", by_path)
def explain(model: str, version: str | None = None) -> dict[str, Any]:
    """Explain the best class of each instance's photo, or the class that its ``target`` names."""
    call = current_call()
    with admitted() as served:
        upload, given = _read(served.settings.max_explanations, EXPLAIN_FIELDS)
        images, class_index = all_or_error(upload.images), whole_number("class_index", given)
        given_targets = upload.targets or [None] * len(images)
        targets = [as_target(target, class_index) for target in given_targets]
        explained = [served.explain(*pair, call) for pair in zip(images, targets, strict=True)]
    return {"predictions": [], "explanations": [one.as_numbers() for one in explained]}


def _read(max_images: int, fields: Fields) -> tuple[Chosen, dict[str, Any]]:
    """Return the images of the request's JSON, form or body, and the parameters."""
    body = read_body(request)
    chosen = form_or_image(body, request, max_images, fields)
    if chosen is None:
        with parsing("json"):
            chosen = _from_json(parse_json(body), max_images, fields)
    return chosen, parameters(fields.parameters, chosen.given)


def _from_json(content: Any, max_images: int, fields: Fields) -> Chosen:
    if not isinstance(content, dict) or not content.keys() & {"instances", "inputs"}:
        raise BadRequest(
            'Unrecognized request format: the body must be {"instances": [{"b64": "<base64>"}]}.'
        )
    key = "instances" if "instances" in content else "inputs"
    instances = content[key]
    if not isinstance(instances, list):
        raise BadRequest(f'"{key}" must be a list.')
    given = [*content.items(), *parameters_of(content).items()]
    return Chosen(
        from_instances(instances, max_images),
        "list",
        given=known_among(given, fields.parameters),
        targets=targets_in(instances),
    )
