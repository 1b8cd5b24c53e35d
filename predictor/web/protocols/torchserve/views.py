"""TorchServe's endpoints."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, jsonify, request
from werkzeug.routing import BaseConverter

from predictor.engine.call import all_or_error
from predictor.engine.metrics import MODEL, labels_of
from predictor.engine.ranking import by_label
from predictor.engine.readings import Readings
from predictor.engine.served import Served
from predictor.errors import PredictorError
from predictor.web.choosing import Chosen, Fields
from predictor.web.openapi import description
from predictor.web.params import as_target, parameters, top_k_of, whole_number
from predictor.web.problems import Problem, without_paths
from predictor.web.protocols.torchserve.metrics import as_version
from predictor.web.request import (
    admitted,
    current_call,
    current_store,
    needs_slot,
    probe,
    resolve,
)
from predictor.web.uploads import read_upload

PREFIXES = ("/ping", "/predictions", "/explanations", "/invocations", "/models", "/api-description")
blueprint = Blueprint("torchserve", __name__)
explanations = Blueprint("torchserve_explanations", __name__)

METHODS = ("GET", "POST", "PUT")
FIELDS = Fields(("data", "body"), '{"data": "<base64>"}', parameters=("top_k",), takes_text=True)
EXPLAIN_FIELDS = replace(FIELDS, parameters=("class_index",))
FILE_NAME = re.compile(r".+\.[A-Za-z][A-Za-z0-9]{1,4}")  # no version has such a name
FIRST_WORKER = 9000  # number of TorchServe's first worker
# TorchServe's names for errors whose name does not follow from the HTTP status.
TYPES = {
    "unknown-model": "ModelNotFoundException",
    "unknown-version": "ModelVersionNotFoundException",
    "not-found": "ResourceNotFoundException",
    "internal-error": "InternalServerException",
    "inference-failed": "InternalServerException",
    "load-failed": "InternalServerException",
    "conflict": "ConflictStatusException",
}


class VersionBeforeVerb(BaseConverter):
    """Matches a version after the model's name in a path, but not the verb ``invoke``."""

    regex = "(?!invoke$)[^/]+"


blueprint.record(lambda state: state.app.url_map.converters.update(version=VersionBeforeVerb))


def as_error(problem: Problem) -> Response:
    """Return an error in the shape that TorchServe's clients read."""
    kind = "".join(word.capitalize() for word in problem["title"].split()) + "Exception"
    kind = TYPES.get(problem["code"], kind)
    return pretty({"code": problem["status"], "type": kind, "message": problem["detail"]})


def pretty(content: Any, status: int = 200) -> Response:
    """Return JSON on several lines, as TorchServe writes it."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return Response(text, status, mimetype="application/json")


@blueprint.get("/ping")
@probe
def ping() -> Response:
    """Answer 200 when ready and 500 before, as TorchServe does.

    SageMaker replaces a container whose ping fails for too long.
    """
    try:
        current_store().expect_ready()
    except PredictorError:
        return pretty({"status": "Unhealthy"}, 500)
    return pretty({"status": "Healthy"})


# Description


@blueprint.route("/", methods=["OPTIONS"])
@blueprint.get("/api-description")
def api_description() -> Response:
    """Return the OpenAPI description of this app (3.1; TorchServe's own is 3.0)."""
    return Response(description(indent=2), mimetype="application/json")


@blueprint.route("/predictions/<model>", methods=["OPTIONS"])
@blueprint.route("/predictions/<model>/<version>", methods=["OPTIONS"])
def model_description(model: str, version: str | None = None) -> Response:
    """Return the OpenAPI description of this app, if it serves the model."""
    resolve(model, version)
    return api_description()


# Inference


def by_path(arguments: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the model and the version that the path names.

    If a PUT names a file after a slash, as ``curl -T`` does, that is no version.
    """
    version = arguments.get("version")
    is_file = request.method == "PUT" and FILE_NAME.fullmatch(version or "")
    return arguments["model"], None if is_file else version


@blueprint.route("/predictions/<model>", methods=METHODS)
@blueprint.route("/predictions/<model>/<version>", methods=METHODS)
@blueprint.put("/predictions/<model>/<version>/<filename>")
@blueprint.post("/models/<model>/invoke")
@needs_slot("prediction", by_path)
def predictions(model: str, version: str | None = None, filename: str = "") -> Response:
    """Return the probabilities of the five best classes by label, best first."""
    return _predict()


@blueprint.post("/invocations")
@needs_slot("prediction", lambda _: (parameters(["model_name"]).get("model_name"), None))
def invocations() -> Response:
    """Classify photos for SageMaker, like ``/predictions``. ``?model_name=`` is optional."""
    return _predict()


def _predict() -> Response:
    with admitted() as served:
        upload, given = read_upload(request, served.settings.max_queue, FIELDS)
        top_k = top_k_of(given, served.model)
        images = all_or_error(upload.images)
        ranked = all_or_error(served.classify(images, top_k, current_call()))
    return pretty(_wrap(upload, [by_label(one) for one in ranked], "predictions"))


@explanations.route("/explanations/<model>", methods=METHODS)
@explanations.route("/explanations/<model>/<version>", methods=METHODS)
@explanations.put("/explanations/<model>/<version>/<filename>")
@needs_slot("explanation", by_path)
def explain(model: str, version: str | None = None, filename: str = "") -> Response:
    """Return the JSON of ``POST /explain``. ``?class_index=`` or ``target`` selects the class."""
    with admitted() as served:
        upload, given = read_upload(request, 1, EXPLAIN_FIELDS)
        class_index = whole_number("class_index", given)
        for target in upload.targets:
            class_index = as_target(target, class_index)
        (image,) = all_or_error(upload.images)
        numbers = served.explain(image, class_index, current_call()).as_numbers()
    return jsonify(_wrap(upload, [numbers], "explanations"))


def _wrap(upload: Chosen, answers: list[Any], key: str) -> Any:
    """Give the answers the shape in which the images were sent; ``key`` wraps ``instances``."""
    return {"one": answers[0], "list": answers, "instances": {key: answers}}[upload.shape]


# Management


@blueprint.get("/models")
def models() -> Response:
    """List the models in pages, as TorchServe does, with the versions that cannot be loaded."""
    store = current_store()
    store.expect_ready()
    failed: dict[str, dict[str, str]] = {}
    for one in store.statuses():
        if one.reason:
            reason = without_paths(one.reason)
            failed.setdefault(one.name, {})[as_version(one.version)] = reason
    urls = {name: resolve(name).model.info.public()["weights"] for name in store.names()}
    models: list[dict[str, Any]] = [
        {"modelName": name, "modelUrl": urls.get(name, "")}
        | ({"failed": failed[name]} if name in failed else {})
        for name in urls | failed
    ]
    limit, begin = whole_number("limit"), whole_number("next_page_token") or 0
    end = begin + (100 if limit is None else max(1, min(limit, 100)))
    page: dict[str, Any] = {"nextPageToken": str(end)} if end < len(models) else {}
    return pretty(page | {"models": models[begin:end]})


@blueprint.get("/models/<model>")
@blueprint.get("/models/<model>/<version:version>")
def model_details(model: str, version: str | None = None) -> Response:
    """Describe the default version, one version, or ``all``."""
    found = resolve(model, None if version == "all" else version)
    served = [one for one in current_store().served() if one.name == model]
    return pretty([_details(one) for one in (served if version == "all" else [found])])


def _details(served: Served) -> dict[str, Any]:
    """Return the model's settings, its queue and its workers, which are this app's processes."""
    loaded, settings = served.model, served.settings
    on_gpu = loaded.info.device.startswith("cuda")
    readings = current_store().metrics.readings()
    workers, labels = _workers(readings, on_gpu), dict(zip(MODEL, labels_of(served), strict=True))
    pending = int(readings.total("predictor_queue_depth", **labels))
    return {
        "modelName": served.name,
        "modelVersion": as_version(served.version),
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
