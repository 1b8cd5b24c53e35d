"""Version 1 of KServe's protocol, which is also TensorFlow Serving's."""

from typing import Any

from flask import Blueprint, Response, jsonify, request
from werkzeug.routing import BaseConverter

from predictor.engine.call import all_or_error
from predictor.engine.classifier import VERSION
from predictor.engine.ranking import as_answer
from predictor.errors import BadRequest
from predictor.web.params import TOP_K, as_integer, parameters_of, quoted, target_of
from predictor.web.problems import Problem
from predictor.web.request import current_call, current_service, needs_slot
from predictor.web.uploads import from_instances, parse_json, read_body

PREFIXES = ("/v1",)
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
    """Return the name of the served model, in a list."""
    return {"models": [current_service().name]}


@blueprint.get("/models/<name:model>")
@blueprint.get("/models/<name:model>/versions/<name:version>")
def model_ready(model: str, version: str = VERSION) -> dict[str, Any]:
    """Answer 200 if the model is ready. The JSON has the keys of KServe and TensorFlow Serving."""
    service = current_service()
    service.expect_model(model, version, [VERSION])
    service.expect_ready()
    status = {"error_code": "OK", "error_message": ""}
    available = {"version": VERSION, "state": "AVAILABLE", "status": status}
    return {"name": model, "ready": True, "model_version_status": [available]}


@blueprint.post("/models/<name:model>:predict")
@blueprint.post("/models/<name:model>/versions/<name:version>:predict")
@needs_slot("prediction")
def predict(model: str, version: str = VERSION) -> dict[str, Any]:
    """Classify the photo of each instance, with the answers of ``POST /predict?top_k=5``."""
    service, call = current_service(), current_call()
    with service.admit(call) as loaded:
        service.expect_model(model, version, [VERSION])
        content, instances = _instances()
        images = all_or_error(from_instances(instances, service.settings.max_queue))
        top_k = _top_k(content, len(loaded.labels))
        del content, instances  # other members can take 80 MB
        ranked = all_or_error(service.classify(images, top_k, call))
    return {"predictions": [as_answer(one, detailed=True) for one in ranked]}


@explanations.post("/models/<name:model>:explain")
@explanations.post("/models/<name:model>/versions/<name:version>:explain")
@needs_slot("explanation")
def explain(model: str, version: str = VERSION) -> dict[str, Any]:
    """Explain the best class of each instance's photo, or the class that its ``target`` names."""
    service, call = current_service(), current_call()
    with service.admit_explanation(call):
        service.expect_model(model, version, [VERSION])
        instances = _instances()[1]
        images = all_or_error(from_instances(instances, service.settings.max_explanations))
        targets = [target_of(instance) for instance in instances]
        del instances
        explained = [service.explain(*pair, call) for pair in zip(images, targets, strict=True)]
    return {"predictions": [], "explanations": [one.as_numbers() for one in explained]}


def _instances() -> tuple[dict[str, Any], list[Any]]:
    """Return the request's JSON, whatever its Content-Type, and the instances in it."""
    content = parse_json(read_body(request))
    if not isinstance(content, dict) or not content.keys() & {"instances", "inputs"}:
        raise BadRequest(
            'Unrecognized request format: the body must be {"instances": [{"b64": "<base64>"}]}.'
        )
    key = "instances" if "instances" in content else "inputs"
    instances = content[key]
    if not isinstance(instances, list):
        raise BadRequest(f'"{key}" must be a list.')
    return content, instances


def _top_k(content: dict[str, Any], classes: int) -> int:
    given = parameters_of(content).get("top_k", min(TOP_K, classes))
    if (top_k := as_integer(given)) is None:
        raise BadRequest(f"top_k is {quoted(given)}; it must be a whole number.")
    return top_k
