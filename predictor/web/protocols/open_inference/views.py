"""The endpoints for the server and the model, except inference, which is in ``infer.py``."""

import math
from typing import Any

from flask import Blueprint, Response, jsonify, request

import predictor
from predictor.engine.classifier import VERSION
from predictor.engine.metrics import Readings
from predictor.errors import BadRequest, NotReady
from predictor.web.json_body import parse_json
from predictor.web.problems import Problem
from predictor.web.protocols.open_inference.compression import decompress
from predictor.web.protocols.open_inference.tensors import INPUT
from predictor.web.request import current_call, current_service, probe
from predictor.web.uploads import read_as_sent

PREFIXES = ("/v2",)
blueprint = Blueprint("open_inference", __name__, url_prefix="/v2")

# The model's own name has an input of encoded photos. The name with this suffix has an input of
# tensors, for programs that look for one (Triton's image_client.py). Both names accept both inputs.
TENSOR_SUFFIX = "-tensor"
OUTPUT = "logits"
MAX_INDEX_BODY = 1024  # bytes
EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "statistics"]
NOT_MEASURED = {"count": 0, "ns": 0}


def as_error(problem: Problem) -> Response:
    """Return an error in the shape that this protocol's clients read."""
    return jsonify({"error": problem["detail"]})


def read_body(limit: int | None = None) -> bytes:
    """Return the request's body, decompressed to at most ``limit`` bytes or the upload limit."""
    encoding = request.content_encoding or "identity"
    call, limit = current_call(), limit or request.max_content_length or 0
    with call.timings.measure("read"):
        body = read_as_sent(request)
        call.budget.sent = len(body)
        return decompress(body, encoding, limit)


def input_of(model: str, version: str) -> tuple[str, tuple[int, ...]]:
    """Return the input's datatype and the shape of one image, for this one of the model's names.

    Raises:
        UnknownModel: the model has another name, or no such version.
    """
    service = current_service()
    has_tensor = model == service.name + TENSOR_SUFFIX
    service.expect_model(service.name if has_tensor else model, version, [VERSION])
    height, width, channels = service.require_model().scorer.preprocessing.shape
    return ("FP32", (channels, height, width)) if has_tensor else ("BYTES", ())


# The server


@blueprint.get("")
def server() -> dict[str, Any]:
    """Return the server's name and version, and the protocol's extensions that it supports."""
    return {"name": "predictor", "version": predictor.__version__, "extensions": EXTENSIONS}


@blueprint.get("/health/live")
@probe
def live() -> dict[str, bool]:
    """Answer 200 while the process is healthy."""
    current_service().expect_healthy()
    return {"live": True}


@blueprint.get("/health/ready")
@probe
def ready() -> dict[str, bool]:
    """Answer 200 if the process can answer requests now."""
    current_service().expect_ready()
    return {"ready": True}


@blueprint.post("/repository/index")
def index() -> Response:
    """List the model as ``name`` and ``name-tensor``; while it loads, as ``name`` only."""
    body = read_body(MAX_INDEX_BODY)
    asked = parse_json(body) if body else {}
    if not isinstance(asked, dict) or not isinstance(asked.get("ready", False), bool):
        raise BadRequest('The body must be {"ready": true}, {"ready": false}, {} or empty.')
    service, settings = current_service(), current_service().settings
    try:
        names, state = [service.name, service.name + TENSOR_SUFFIX], "READY"
    except NotReady:
        name = settings.model if settings.served_name == "auto" else settings.served_name
        names, state = [] if asked.get("ready") else [name], "LOADING"
    return jsonify([{"name": n, "version": VERSION, "state": state, "reason": ""} for n in names])


# The model


@blueprint.get("/models/<model>")
@blueprint.get("/models/<model>/versions/<version>")
def metadata(model: str, version: str = VERSION) -> dict[str, Any]:
    """Return the model's inputs and outputs."""
    datatype, shape = input_of(model, version)
    outputs = current_service().require_model().info.outputs
    return {
        "name": model,
        "versions": [VERSION],
        "platform": "pytorch_eager",
        "inputs": [{"name": INPUT, "datatype": datatype, "shape": [-1, *shape]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, outputs]}],
    }


@blueprint.get("/models/<model>/ready")
@blueprint.get("/models/<model>/versions/<version>/ready")
def model_ready(model: str, version: str = VERSION) -> dict[str, Any]:
    """Answer 200 when the model can answer."""
    input_of(model, version)
    current_service().expect_ready()
    return {"name": model, "ready": True}


@blueprint.get("/models/<model>/config")
@blueprint.get("/models/<model>/versions/<version>/config")
def config(model: str, version: str = VERSION) -> dict[str, Any]:
    """Return the model's configuration in Triton's format, with the normalisation of tensors."""
    _, shape = input_of(model, version)
    service = current_service()
    loaded, settings = service.require_model(), service.settings
    # The number of tensors that fit into a body, with 1 kB for the JSON before them.
    room = (settings.max_upload_bytes - 1024) // (4 * math.prod(shape))
    most = max(1, min(settings.max_queue, room))
    preprocessing, outputs = loaded.scorer.preprocessing, loaded.info.outputs
    facts = {
        "mean": ",".join(map(str, preprocessing.mean)),
        "std": ",".join(map(str, preprocessing.std)),
        "channels": preprocessing.channels,
        "scale": preprocessing.scale,
        "activation": loaded.card.output.activation,
    }
    if shape:
        tensor = {"data_type": "TYPE_FP32", "format": "FORMAT_NCHW", "dims": list(shape)}
    else:  # max_batch_size is 0: the dimensions include the batch
        tensor = {"data_type": "TYPE_STRING", "format": "FORMAT_NONE", "dims": [-1]}
    dims = [outputs] if shape else [-1, outputs]
    return {
        "name": model,
        "platform": "pytorch_eager",
        "backend": "pytorch",
        "max_batch_size": most if shape else 0,
        "input": [{"name": INPUT, **tensor}],
        "output": [{"name": OUTPUT, "data_type": "TYPE_FP32", "dims": dims}],
        "parameters": {key: {"string_value": text} for key, text in facts.items()},
    }


@blueprint.get("/models/stats")
@blueprint.get("/models/<model>/stats")
@blueprint.get("/models/<model>/versions/<version>/stats")
def stats(model: str | None = None, version: str = VERSION) -> dict[str, Any]:
    """Return the model's counts since the server started."""
    # Each count is the sum over all processes and over both names, ``name`` and ``name-tensor``.
    service = current_service()
    model = service.name if model is None else model
    input_of(model, version)
    readings = service.metrics.readings()
    last = max(readings.values("predictor_last_prediction_timestamp_seconds"), default=0)
    counts = {
        "name": model,
        "version": VERSION,
        "last_inference": int(last * 1000),
        "inference_count": int(readings.total("predictor_batch_size_sum")),
        "execution_count": int(readings.total("predictor_batch_size_count")),
        "inference_stats": {
            "success": _duration(readings, "prediction", outcome="success"),
            "fail": _duration(readings, "prediction", outcome="fail"),
            "queue": _duration(readings, "queue"),
            "compute_input": _duration(readings, "decode"),
            "compute_infer": _duration(readings, "inference"),
            "compute_output": NOT_MEASURED,
            "cache_hit": NOT_MEASURED,
            "cache_miss": NOT_MEASURED,
        },
        "batch_stats": [],
    }
    return {"model_stats": [counts]}


def _duration(readings: Readings, metric: str, **labels: str) -> dict[str, int]:
    seconds = readings.total(f"predictor_{metric}_seconds_sum", **labels)
    count = readings.total(f"predictor_{metric}_seconds_count", **labels)
    return {"count": int(count), "ns": int(seconds * 1e9)}
