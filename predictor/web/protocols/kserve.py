"""KServe's first protocol, which is TensorFlow Serving's: instances in, predictions out."""

from __future__ import annotations

from time import monotonic
from typing import Any

from flask import Blueprint, Response, jsonify, request
from flask.blueprints import BlueprintSetupState
from werkzeug.routing import BaseConverter

from predictor.engine.ranking import as_answer
from predictor.errors import BadRequest
from predictor.web.api import health
from predictor.web.api.explain import as_numbers
from predictor.web.current import current_classifier, expect_model
from predictor.web.problems import Problem
from predictor.web.service import admit_explanation, all_or_error, classify, explain
from predictor.web.uploads import (
    as_integer,
    from_instances,
    parameters_of,
    parse_json,
    read_body,
    target_of,
)

PREFIXES = ("/v1",)
blueprint = Blueprint("kserve", __name__, url_prefix="/v1")
explanations = Blueprint("kserve_explanations", __name__, url_prefix="/v1")

VERSION = "1"
TOP_K = 5


def as_error(problem: Problem) -> Response:
    """An error as these clients read it."""
    return jsonify({"error": problem["detail"]})


class WithoutVerb(BaseConverter):
    """A name in an address that may have ``:predict`` behind it."""

    regex = "[^/:]+"


def _know_names(state: BlueprintSetupState) -> None:
    state.app.url_map.converters["name"] = WithoutVerb


blueprint.record(_know_names)


@blueprint.get("/models")
def models() -> dict[str, Any]:
    """The one model's name."""
    return {"models": [current_classifier().name]}


@blueprint.get("/models/<name:model>")
@blueprint.get("/models/<name:model>/versions/<name:version>")
def model_ready(model: str, version: str = VERSION) -> dict[str, Any]:
    """Whether the model can answer, as both kinds of clients read it."""
    expect_model(model, version, [VERSION])
    health.readyz()
    status = {"error_code": "OK", "error_message": ""}
    available = {"version": VERSION, "state": "AVAILABLE", "status": status}
    return {"name": model, "ready": True, "model_version_status": [available]}


@blueprint.post("/models/<name:model>:predict")
@blueprint.post("/models/<name:model>/versions/<name:version>:predict")
def predict(model: str, version: str = VERSION) -> dict[str, Any]:
    """Classify the instances' photos, each as ``POST /predict?top_k=5`` does."""
    classifier = current_classifier()
    with classifier.admit():
        expect_model(model, version, [VERSION])
        content, instances = _instances()
        images = all_or_error(from_instances(instances, classifier.settings.max_queue))
        top_k = _top_k(content, len(classifier.engine().labels))
        ranked = all_or_error(classify(images, top_k))
    return {"predictions": [as_answer(one, detailed=True) for one in ranked]}


@explanations.post("/models/<name:model>:explain")
@explanations.post("/models/<name:model>/versions/<name:version>:explain")
def explain_instances(model: str, version: str = VERSION) -> dict[str, Any]:
    """Explain the best class of each instance's photo, or the one that is its ``target``."""
    settings = current_classifier().settings
    with admit_explanation():
        deadline = monotonic() + settings.request_timeout_s
        expect_model(model, version, [VERSION])
        _, instances = _instances()
        images = all_or_error(from_instances(instances, settings.max_explanations))
        targets = [target_of(instance) for instance in instances]
        told = [explain(*pair, deadline) for pair in zip(images, targets, strict=True)]
    return {"predictions": [], "explanations": [as_numbers(one) for one in told]}


def _instances() -> tuple[dict[str, Any], Any]:
    """The request's JSON, whatever its type is called, and the instances in it."""
    content = parse_json(read_body(request))
    if not isinstance(content, dict) or not content.keys() & {"instances", "inputs"}:
        raise BadRequest('Unrecognized request format: {"instances": [{"b64": "…"}]} is wanted.')
    key = "instances" if "instances" in content else "inputs"
    instances = content[key]
    if not isinstance(instances, list):
        raise BadRequest(f'Expected "{key}" to be a list.')
    return content, instances


def _top_k(content: dict[str, Any], classes: int) -> int:
    given = parameters_of(content).get("top_k", min(TOP_K, classes))
    if (top_k := as_integer(given)) is None:
        raise BadRequest(f"top_k is {given!r}; a whole number is wanted.")
    return top_k
