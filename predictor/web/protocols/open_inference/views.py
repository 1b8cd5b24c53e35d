"""The endpoints for the server and the model, except inference, which is in ``infer.py``."""

import math
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, jsonify, request

import predictor
from predictor.engine.metrics import MODEL, labels_of
from predictor.engine.readings import Readings
from predictor.engine.served import Served
from predictor.errors import BadRequest
from predictor.web.json_body import parse_json
from predictor.web.problems import Problem, without_paths
from predictor.web.protocols.open_inference.compression import decompress, decompress_parts
from predictor.web.protocols.open_inference.tensors import INPUT
from predictor.web.request import current_call, current_store, probe, resolve
from predictor.web.uploads import read_as_sent

PREFIXES = ("/v2",)
blueprint = Blueprint("open_inference", __name__, url_prefix="/v2")

# The model's own name has an input of encoded photos. The name with this suffix has an input of
# tensors, for programs that look for one (Triton's image_client.py). Both names accept both inputs.
TENSOR_SUFFIX = "-tensor"
OUTPUT = "logits"
MAX_INDEX_BODY = 1024  # bytes
EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "statistics"]
NUMBER_BYTES = 40  # of text; to parse them takes about as long as a number
NOT_MEASURED = {"count": 0, "ns": 0}


def as_error(problem: Problem) -> Response:
    """Return an error in the shape that this protocol's clients read."""
    return jsonify({"error": problem["detail"]})


def is_compressed() -> bool:
    """Return whether the request says that its body is compressed."""
    return _encoding() != "identity"


def read_sent() -> bytes:
    """Return the request's body as it was sent."""
    with current_call().timings.measure("read"):
        return read_as_sent(request)


def unpack(sent: bytes, limit: int) -> bytes:
    """Return the body, decompressed to at most ``limit`` bytes."""
    call = current_call()
    with call.timings.measure("read"):
        body = decompress(sent, _encoding(), limit)
    call.budget.ratio = max(1.0, len(body) / max(1, len(sent)))
    return body


def count_numbers(sent: bytes, limit: int) -> int:
    """Return how many numbers a compressed body has, or take as long to parse as its text.

    Its errors are those of :func:`unpack`. The body, decompressed to 20 times its size, is not
    kept: it may have to wait to be parsed.
    """
    with current_call().timings.measure("read"):
        return sum(
            max(part.count(b","), len(part) // NUMBER_BYTES)  # a number has a comma
            for part in decompress_parts(sent, _encoding(), limit)
        )


def _encoding() -> str:
    return (request.content_encoding or "identity").lower()


def by_path(arguments: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the model and the version that the path names, by one of the model's names."""
    name, version = arguments["model"], arguments.get("version")
    plain, names = name.removesuffix(TENSOR_SUFFIX), current_store().names()
    return plain if plain in names and name not in names else name, version


def input_of(served: Served, name: str) -> tuple[str, tuple[int, ...]]:
    """Return the input's datatype and the shape of one image, for this one of the model's names."""
    if name == served.name:
        return "BYTES", ()
    height, width, channels = served.model.scorer.preprocessing.shape
    return "FP32", (channels, height, width)


def _find(model: str, version: str | None) -> Served:
    return resolve(*by_path({"model": model, "version": version}))


# The server


@blueprint.get("")
def server() -> dict[str, Any]:
    """Return the server's name and version, and the protocol's extensions that it supports."""
    return {"name": "predictor", "version": predictor.__version__, "extensions": EXTENSIONS}


@blueprint.get("/health/live")
@probe
def live() -> dict[str, bool]:
    """Answer 200 while the process is healthy."""
    current_store().expect_healthy()
    return {"live": True}


@blueprint.get("/health/ready")
@probe
def ready() -> dict[str, bool]:
    """Answer 200 if the process can answer requests now."""
    current_store().expect_ready()
    return {"ready": True}


@blueprint.post("/repository/index")
def index() -> Response:
    """List each version as ``name`` and ``name-tensor``; while it loads, as ``name`` only."""
    body = unpack(read_sent(), MAX_INDEX_BODY)
    asked = parse_json(body) if body else {}
    if not isinstance(asked, dict) or not isinstance(asked.get("ready", False), bool):
        raise BadRequest('The body must be {"ready": true}, {"ready": false}, {} or empty.')
    statuses = current_store().statuses()
    names = {one.name for one in statuses}
    return jsonify([
        {
            "name": name, "version": str(one.version), "state": one.state,
            "reason": without_paths(one.reason),
        }
        for one in statuses
        for name in ((one.name, one.name + TENSOR_SUFFIX) if one.served else (one.name,))
        if one.served or not asked.get("ready")
        if name == one.name or name not in names
    ])  # fmt: skip


# The model


@blueprint.get("/models/<model>")
@blueprint.get("/models/<model>/versions/<version>")
def metadata(model: str, version: str | None = None) -> dict[str, Any]:
    """Return the model's inputs and outputs."""
    served = _find(model, version)
    datatype, shape = input_of(served, model)
    info = served.model.info
    return {
        "name": model,
        "versions": [
            str(one.version) for one in current_store().served() if one.name == served.name
        ],
        "platform": info.platform,
        "inputs": [{"name": INPUT, "datatype": datatype, "shape": [-1, *shape]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, info.outputs]}],
    }


@blueprint.get("/models/<model>/ready")
@blueprint.get("/models/<model>/versions/<version>/ready")
def model_ready(model: str, version: str | None = None) -> dict[str, Any]:
    """Answer 200 when the model can answer."""
    _find(model, version)
    current_store().expect_ready()
    return {"name": model, "ready": True}


@blueprint.get("/models/<model>/config")
@blueprint.get("/models/<model>/versions/<version>/config")
def config(model: str, version: str | None = None) -> dict[str, Any]:
    """Return the model's configuration in Triton's format, with the normalisation of tensors."""
    served = _find(model, version)
    _, shape = input_of(served, model)
    loaded, settings = served.model, served.settings
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
        "platform": loaded.info.platform,
        "backend": loaded.info.backend,
        "max_batch_size": most if shape else 0,
        "input": [{"name": INPUT, **tensor}],
        "output": [{"name": OUTPUT, "data_type": "TYPE_FP32", "dims": dims}],
        "parameters": {key: {"string_value": text} for key, text in facts.items()},
    }


@blueprint.get("/models/stats")
@blueprint.get("/models/<model>/stats")
@blueprint.get("/models/<model>/versions/<version>/stats")
def stats(model: str | None = None, version: str | None = None) -> dict[str, Any]:
    """Return the counts of one version, or of all, since the server started."""
    if model is None:
        return {"model_stats": [_stats(one, one.name) for one in current_store().served()]}
    return {"model_stats": [_stats(_find(model, version), model)]}


def _stats(served: Served, name: str) -> dict[str, Any]:
    # Each count is the sum over all processes and over both names, ``name`` and ``name-tensor``.
    readings = current_store().metrics.readings()
    labels = dict(zip(MODEL, labels_of(served), strict=True))
    last = max(readings.values("predictor_last_prediction_timestamp_seconds"), default=0)
    return {
        "name": name,
        "version": str(served.version),
        "last_inference": int(last * 1000),
        "inference_count": int(readings.total("predictor_batch_size_sum", **labels)),
        "execution_count": int(readings.total("predictor_batch_size_count", **labels)),
        "inference_stats": {
            "success": _duration(readings, "prediction", outcome="success", **labels),
            "fail": _duration(readings, "prediction", outcome="fail", **labels),
            "queue": _duration(readings, "queue", **labels),
            "compute_input": _duration(readings, "decode", **labels),
            "compute_infer": _duration(readings, "inference", **labels),
            "compute_output": NOT_MEASURED,
            "cache_hit": NOT_MEASURED,
            "cache_miss": NOT_MEASURED,
        },
        "batch_stats": [],
    }


def _duration(readings: Readings, metric: str, **labels: str) -> dict[str, int]:
    seconds = readings.total(f"predictor_{metric}_seconds_sum", **labels)
    count = readings.total(f"predictor_{metric}_seconds_count", **labels)
    return {"count": int(count), "ns": int(seconds * 1e9)}
