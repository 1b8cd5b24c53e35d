"""TorchServe's inference API, and what only reads of its management API."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, NamedTuple

from flask import Blueprint, Response, jsonify, request
from flask.blueprints import BlueprintSetupState
from werkzeug.routing import BaseConverter

from predictor.engine.ranking import Prediction
from predictor.engine.readings import TORCHSERVE_VERSION as VERSION
from predictor.engine.readings import Readings
from predictor.errors import PredictorError, RequestError
from predictor.images.decoding import begins_like_an_image
from predictor.web.api import health
from predictor.web.api.explain import as_numbers
from predictor.web.api.openapi import document
from predictor.web.api.predict import parameter, whole_number
from predictor.web.current import current_classifier, current_metrics, expect_model
from predictor.web.probes import probe
from predictor.web.problems import Problem
from predictor.web.service import admit_explanation, all_or_error, classify, explain
from predictor.web.uploads import (
    Fields,
    from_base64,
    from_instances,
    parse_json,
    read_body,
    read_upload,
    target_of,
)

PREFIXES = (
    "/ping",
    "/predictions",
    "/explanations",
    "/invocations",
    "/models",
    "/api-description",
)
blueprint = Blueprint("torchserve", __name__)
explanations = Blueprint("torchserve_explanations", __name__)

TOP_K = 5  # as its image_classifier has it
METHODS = ("GET", "POST", "PUT")
FIELDS = Fields(files=("data", "body"), texts=("data", "body"), json="data")
FIRST_WORKER = 9000  # it numbers its workers from there
# Where its names are not made of HTTP's.
TYPES = {
    "unknown-model": "ModelNotFoundException",
    "unknown-version": "ModelVersionNotFoundException",
    "not-found": "ResourceNotFoundException",
    "internal-error": "InternalServerException",
    "inference-failed": "InternalServerException",
}


class Received(NamedTuple):
    """What was sent, however it was sent."""

    images: list[bytes | RequestError]
    wrap: Callable[[list[Any]], Any]  # the answers, packed as the images were
    instances: Sequence[Any] = ()  # of JSON


class Version(BaseConverter):
    """What may stand behind a model's name and is no verb."""

    regex = "(?!invoke$)[^/]+"


def _know_versions(state: BlueprintSetupState) -> None:
    state.app.url_map.converters["version"] = Version


blueprint.record(_know_versions)


def as_error(problem: Problem) -> Response:
    """An error as its clients read it."""
    kind = "".join(word.capitalize() for word in problem["title"].split()) + "Exception"
    kind = TYPES.get(problem["code"], kind)
    return _pretty({"code": problem["status"], "type": kind, "message": problem["detail"]})


def _pretty(content: Any, status: int = 200) -> Response:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return Response(text, status, mimetype="application/json")


@blueprint.get("/ping")
@probe
def ping() -> Response:
    """Whether it can answer now; what cannot is replaced by whoever asks, as SageMaker does."""
    try:
        health.readyz()
    except PredictorError:
        return _pretty({"status": "Unhealthy"}, 500)
    return _pretty({"status": "Healthy"})


# Its description


@blueprint.route("/", methods=["OPTIONS"])
@blueprint.get("/api-description")
def api_description() -> Response:
    """What is answered here, all of it; OpenAPI 3.1, where TorchServe's is 3.0."""
    return _pretty(document())


@blueprint.route("/predictions/<model>", methods=["OPTIONS"])
@blueprint.route("/predictions/<model>/<version>", methods=["OPTIONS"])
def model_description(model: str, version: str = VERSION) -> Response:
    """The same for whoever asks of a model."""
    expect_model(model, version, [VERSION])
    return api_description()


# Inference


@blueprint.route("/predictions/<model>", methods=METHODS)
@blueprint.route("/predictions/<model>/<version>", methods=METHODS)
@blueprint.post("/models/<model>/invoke")
def predictions(model: str, version: str = VERSION) -> Response:
    """The five best classes' probabilities by their labels, best first."""
    classifier = current_classifier()
    with classifier.admit():
        expect_model(model, version, [VERSION])
        received = _read(classifier.settings.max_queue, "predictions")
        top_k = min(TOP_K, len(classifier.engine().labels))
        ranked = all_or_error(classify(all_or_error(received.images), top_k))
    return _pretty(received.wrap([by_label(one) for one in ranked]))


@blueprint.post("/invocations")
def invocations() -> Response:
    """The same for SageMaker, which knows of one model and need not name it."""
    name = parameter("model_name")
    return predictions(current_classifier().name if name is None else name)


@explanations.route("/explanations/<model>", methods=METHODS)
@explanations.route("/explanations/<model>/<version>", methods=METHODS)
def explain_best(model: str, version: str = VERSION) -> Response:
    """Why: the numbers of ``POST /explain``; ``?class_index=`` or ``target`` is another class."""
    with admit_explanation():
        expect_model(model, version, [VERSION])
        received, class_index = _read(1, "explanations"), whole_number("class_index")
        for instance in received.instances if class_index is None else ():
            class_index = target_of(instance)
        told = [explain(image, class_index) for image in all_or_error(received.images)]
    return jsonify(received.wrap([as_numbers(one) for one in told]))


def by_label(ranked: Sequence[Prediction]) -> dict[str, float]:
    """Probabilities by label; of two classes with one label, the second one's has its id, too."""
    answer: dict[str, float] = {}
    for one in ranked:
        taken = one.class_name in answer
        label = f"{one.class_name} ({one.class_id})" if taken else one.class_name
        answer[label] = one.probability
    return answer


def _read(max_images: int, envelope: str) -> Received:
    """Read the images; of instances the answers are in an envelope, too."""
    if request.is_json:
        return _from_json(parse_json(read_body(request)), max_images, envelope)
    if request.mimetype == "text/plain":
        body = read_body(request)
        text = body.decode("ascii", "replace")
        image = body if begins_like_an_image(body) else from_base64(text)
        return Received([image], itemgetter(0))
    upload = read_upload(request, max_images, FIELDS)
    return Received(upload.images, list if upload.several else itemgetter(0))


def _from_json(content: Any, max_images: int, envelope: str) -> Received:
    if isinstance(content, dict) and "instances" in content:
        instances = content["instances"]
        images = from_instances(instances, max_images)
        return Received(images, lambda answers: {envelope: answers}, instances)
    if isinstance(content, list):
        return Received(from_instances(content, max_images), list, content)
    return Received(from_instances([content], max_images), itemgetter(0), [content])


# Management


@blueprint.get("/models")
def models() -> Response:
    """The one model, in pages as they are asked for."""
    classifier = current_classifier()
    only = {"modelName": classifier.name, "modelUrl": classifier.engine().info.public()["weights"]}
    limit, begin = whole_number("limit"), whole_number("next_page_token") or 0
    end = begin + (100 if limit is None else max(1, min(limit, 100)))
    page: dict[str, Any] = {"nextPageToken": str(end)} if end < 1 else {}
    return _pretty(page | {"models": [only][begin:end]})


@blueprint.get("/models/<model>")
@blueprint.get("/models/<model>/<version:version>")
def describe(model: str, version: str = VERSION) -> Response:
    """The model's particulars and its workers: our processes."""
    expect_model(model, version, [VERSION, "all"])
    classifier = current_classifier()
    engine, settings = classifier.engine(), classifier.settings
    on_gpu = engine.info.device.startswith("cuda")
    readings = current_metrics().readings()
    workers, pending = _workers(readings, on_gpu), int(readings.total("predictor_queue_depth"))
    particulars = {
        "modelName": model,
        "modelVersion": VERSION,
        "modelUrl": engine.info.public()["weights"],
        "runtime": "python",
        "minWorkers": len(workers),
        "maxWorkers": len(workers),
        "batchSize": engine.model.max_batch_size,
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
    return _pretty([particulars])


def _workers(readings: Readings, on_gpu: bool) -> list[dict[str, Any]]:
    memory = readings.by_process("process_resident_memory_bytes")
    ready = readings.by_process("predictor_ready")  # of one process that is alone it has no id
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
