"""TorchServe's endpoints."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, NamedTuple

from flask import Blueprint, Response, jsonify, request
from werkzeug.routing import BaseConverter

from predictor.engine.call import all_or_error
from predictor.engine.metrics import Readings
from predictor.engine.ranking import Prediction
from predictor.errors import PredictorError, RequestError
from predictor.images.decoding import begins_like_an_image
from predictor.web.openapi import description
from predictor.web.params import TOP_K, parameter, target_of, whole_number
from predictor.web.problems import Problem
from predictor.web.protocols.torchserve.metrics import VERSION
from predictor.web.request import current_call, current_service, needs_slot, probe
from predictor.web.uploads import (
    Fields,
    from_base64,
    from_instances,
    parse_json,
    read_body,
    read_upload,
)

PREFIXES = ("/ping", "/predictions", "/explanations", "/invocations", "/models", "/api-description")
blueprint = Blueprint("torchserve", __name__)
explanations = Blueprint("torchserve_explanations", __name__)

METHODS = ("GET", "POST", "PUT")
FIELDS = Fields(files=("data", "body"), texts=("data", "body"), json="data")
FIRST_WORKER = 9000  # number of TorchServe's first worker
# TorchServe's names for errors whose name does not follow from the HTTP status.
TYPES = {
    "unknown-model": "ModelNotFoundException",
    "unknown-version": "ModelVersionNotFoundException",
    "not-found": "ResourceNotFoundException",
    "internal-error": "InternalServerException",
    "inference-failed": "InternalServerException",
}


class ParsedRequest(NamedTuple):
    """The images of a request, and the shape of its answer."""

    images: list[bytes | RequestError]
    wrap: Callable[[list[Any]], Any]  # gives the answers the shape in which the images were sent
    instances: Sequence[Any] = ()  # the JSON values that the images were read from


class VersionBeforeVerb(BaseConverter):
    """Matches a version after the model's name in a path, but not the verb ``invoke``."""

    regex = "(?!invoke$)[^/]+"


blueprint.record(lambda state: state.app.url_map.converters.update(version=VersionBeforeVerb))


def as_error(problem: Problem) -> Response:
    """Return an error in the shape that TorchServe's clients read."""
    kind = "".join(word.capitalize() for word in problem["title"].split()) + "Exception"
    kind = TYPES.get(problem["code"], kind)
    return _pretty({"code": problem["status"], "type": kind, "message": problem["detail"]})


def _pretty(content: Any, status: int = 200) -> Response:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return Response(text, status, mimetype="application/json")


@blueprint.get("/ping")
@probe
def ping() -> Response:
    """Answer 200 when ready and 500 before, as TorchServe does.

    SageMaker replaces a container whose ping fails for too long.
    """
    try:
        current_service().expect_ready()
    except PredictorError:
        return _pretty({"status": "Unhealthy"}, 500)
    return _pretty({"status": "Healthy"})


# Description


@blueprint.route("/", methods=["OPTIONS"])
@blueprint.get("/api-description")
def api_description() -> Response:
    """Return the OpenAPI description of this app (3.1; TorchServe's own is 3.0)."""
    return Response(description(indent=2), mimetype="application/json")


@blueprint.route("/predictions/<model>", methods=["OPTIONS"])
@blueprint.route("/predictions/<model>/<version>", methods=["OPTIONS"])
def model_description(model: str, version: str = VERSION) -> Response:
    """Return the OpenAPI description of this app, if it serves the model."""
    current_service().expect_model(model, version, [VERSION])
    return api_description()


# Inference


@blueprint.route("/predictions/<model>", methods=METHODS)
@blueprint.route("/predictions/<model>/<version>", methods=METHODS)
@blueprint.post("/models/<model>/invoke")
@needs_slot("prediction")
def predictions(model: str, version: str = VERSION) -> Response:
    """Return the probabilities of the five best classes by label, best first."""
    return _predict(model, version)


@blueprint.post("/invocations")
@needs_slot("prediction")
def invocations() -> Response:
    """Classify photos for SageMaker, like ``/predictions``. ``?model_name=`` is optional."""
    name = parameter("model_name")
    return _predict(current_service().name if name is None else name, VERSION)


def _predict(model: str, version: str) -> Response:
    service, call = current_service(), current_call()
    with service.admit(call) as loaded:
        service.expect_model(model, version, [VERSION])
        images, wrap = _read(service.settings.max_queue, "predictions")[:2]
        top_k = min(TOP_K, len(loaded.labels))
        ranked = all_or_error(service.classify(all_or_error(images), top_k, call))
    return _pretty(wrap([by_label(one) for one in ranked]))


@explanations.route("/explanations/<model>", methods=METHODS)
@explanations.route("/explanations/<model>/<version>", methods=METHODS)
@needs_slot("explanation")
def explain(model: str, version: str = VERSION) -> Response:
    """Return the JSON of ``POST /explain``. ``?class_index=`` or ``target`` selects the class."""
    service, call = current_service(), current_call()
    with service.admit_explanation(call):
        service.expect_model(model, version, [VERSION])
        parsed, class_index = _read(1, "explanations"), whole_number("class_index")
        for instance in parsed.instances if class_index is None else ():
            class_index = target_of(instance)
        explained = [
            service.explain(image, class_index, call) for image in all_or_error(parsed.images)
        ]
    return jsonify(parsed.wrap([one.as_numbers() for one in explained]))


def by_label(ranked: Sequence[Prediction]) -> dict[str, float]:
    """Return probabilities by label. If two classes share a label, the second label gets its id."""
    answer: dict[str, float] = {}
    for one in ranked:
        taken = one.class_name in answer
        label = f"{one.class_name} ({one.class_id})" if taken else one.class_name
        answer[label] = one.probability
    return answer


def _read(max_images: int, key: str) -> ParsedRequest:
    """Read the images. Answers to JSON ``instances`` are wrapped in an object under ``key``."""
    if request.is_json:
        return _from_json(parse_json(read_body(request)), max_images, key)
    if request.mimetype == "text/plain":
        body = read_body(request)
        text = body.decode("ascii", "replace")
        image = body if begins_like_an_image(body) else from_base64(text)
        return ParsedRequest([image], itemgetter(0))
    upload = read_upload(request, max_images, FIELDS)
    return ParsedRequest(upload.images, list if upload.several else itemgetter(0))


def _from_json(content: Any, max_images: int, key: str) -> ParsedRequest:
    if isinstance(content, dict) and "instances" in content:
        instances = content["instances"]
        images = from_instances(instances, max_images)
        return ParsedRequest(images, lambda answers: {key: answers}, instances)
    if isinstance(content, list):
        return ParsedRequest(from_instances(content, max_images), list, content)
    return ParsedRequest(from_instances([content], max_images), itemgetter(0), [content])


# Management


@blueprint.get("/models")
def models() -> Response:
    """List the served models in pages, as TorchServe does. This app serves one model."""
    service = current_service()
    weights = service.require_model().info.public()["weights"]
    only = {"modelName": service.name, "modelUrl": weights}
    limit, begin = whole_number("limit"), whole_number("next_page_token") or 0
    end = begin + (100 if limit is None else max(1, min(limit, 100)))
    page: dict[str, Any] = {"nextPageToken": str(end)} if end < 1 else {}
    return _pretty(page | {"models": [only][begin:end]})


@blueprint.get("/models/<model>")
@blueprint.get("/models/<model>/<version:version>")
def model_details(model: str, version: str = VERSION) -> Response:
    """Return the model's settings, its queue and its workers, which are this app's processes."""
    service = current_service()
    service.expect_model(model, version, [VERSION, "all"])
    loaded, settings = service.require_model(), service.settings
    on_gpu = loaded.info.device.startswith("cuda")
    readings = service.metrics.readings()
    workers, pending = _workers(readings, on_gpu), int(readings.total("predictor_queue_depth"))
    details = {
        "modelName": model,
        "modelVersion": VERSION,
        "modelUrl": loaded.info.public()["weights"],
        "runtime": "python",
        "minWorkers": len(workers),
        "maxWorkers": len(workers),
        "batchSize": loaded.scorer.max_batch_size,
        "maxBatchDelay": round(settings.max_batch_delay_ms),
        "responseTimeout": round(settings.request_timeout_s),
        "deviceType": "gpu" if on_gpu else "cpu",
        "loadedAtStartup": True,
        "workers": workers,
        "jobQueueStatus": {
            "remainingCapacity": max(0, settings.max_queue * len(workers) - pending),
            "pendingRequests": pending,
        },
    }
    return _pretty([details])


def _workers(readings: Readings, on_gpu: bool) -> list[dict[str, Any]]:
    memory = readings.by_process("process_resident_memory_bytes")
    ready = readings.by_process("predictor_ready")  # empty with a single process
    began = sorted(readings.by_process("process_start_time_seconds").items())
    return [
        {
            "id": str(number),
            "startTime": datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds"),
            "status": "READY" if ready.get(pid, 1) else "UNLOADING",
            "memoryUsage": int(memory.get(pid, 0)),
            "pid": pid,
            "gpu": on_gpu,
            "gpuUsage": "N/A",
        }
        for number, (pid, seconds) in enumerate(began, FIRST_WORKER)
    ]
