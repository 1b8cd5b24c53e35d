"""The Open Inference Protocol, version 2, over HTTP: the language of Triton and KServe."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from flask import Blueprint, Response, jsonify, request

import predictor
from predictor.engine.classifier import Classifier, Logits
from predictor.engine.cpus import available_cpus
from predictor.engine.ranking import rank
from predictor.errors import BadRequest, DeadlineExceeded, NotReady
from predictor.settings import Settings
from predictor.web.api import health
from predictor.web.current import current_classifier, current_metrics, expect_model
from predictor.web.probes import probe
from predictor.web.problems import Problem, sayable
from predictor.web.protocols.compression import compress, decompress
from predictor.web.protocols.tensors import HEADER, INPUT, Tensor, read_input, split, write_output
from predictor.web.request import current_exchange
from predictor.web.service import Image, all_or_error, score
from predictor.web.uploads import as_integer, parameters_of, parse_json, read_as_sent

PREFIXES = ("/v2",)
blueprint = Blueprint("open_inference", __name__, url_prefix="/v2")

VERSION = "1"
# Under the model's name it wants encoded photos; under this one, programs that can send nothing
# but a tensor (Triton's image_client.py) find a model that wants one. Both take both.
TENSOR = "-tensor"
OUTPUT = "logits"
MAX_ID = 1024  # characters of a request's
MAX_QUESTION = 1024  # bytes of what the index is asked with
LARGEST = 10_000  # a photo's are within ±3; with much larger ones a network's numbers overflow
EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "statistics"]
# JSON takes many times its bytes once it is Python's objects, and the interpreter all the while.
_unpacking = threading.BoundedSemaphore(available_cpus())


def as_error(problem: Problem) -> Response:
    """An error as these clients read it."""
    return jsonify({"error": problem["detail"]})


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a caller wants the output."""

    binary: bool
    classes: int  # of the classification extension; 0: the logits


# The server


@blueprint.get("")
def server() -> dict[str, Any]:
    """What this server is, and what it can beyond the protocol."""
    return {"name": "predictor", "version": predictor.__version__, "extensions": EXTENSIONS}


@blueprint.get("/health/live")
@probe
def live() -> dict[str, bool]:
    """Whether the process is worth keeping."""
    health.healthz()
    return {"live": True}


@blueprint.get("/health/ready")
@probe
def ready() -> dict[str, bool]:
    """Whether it can answer now."""
    health.readyz()
    return {"ready": True}


@blueprint.post("/repository/index")
def index() -> Response:
    """Which models there are: one, under both of its names; before it is loaded, one."""
    body = _body(MAX_QUESTION)
    asked = parse_json(body) if body else {}
    if not isinstance(asked, dict) or not isinstance(asked.get("ready", False), bool):
        raise BadRequest('{"ready": true} is wanted, {} or nothing.')
    classifier = current_classifier()
    try:
        names, state = [classifier.name, classifier.name + TENSOR], "READY"
    except NotReady:
        chosen = classifier.settings
        name = chosen.model if chosen.served_name == "auto" else chosen.served_name
        names, state = [] if asked.get("ready") else [name], "LOADING"
    return jsonify([{"name": n, "version": VERSION, "state": state, "reason": ""} for n in names])


# The model


@blueprint.get("/models/<model>")
@blueprint.get("/models/<model>/versions/<version>")
def metadata(model: str, version: str = VERSION) -> dict[str, Any]:
    """What the model takes and gives."""
    datatype, shape = _input(model, version)
    classes = len(current_classifier().engine().labels)
    return {
        "name": model,
        "versions": [VERSION],
        "platform": "pytorch_eager",
        "inputs": [{"name": INPUT, "datatype": datatype, "shape": [-1, *shape]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, classes]}],
    }


@blueprint.get("/models/<model>/ready")
@blueprint.get("/models/<model>/versions/<version>/ready")
def model_ready(model: str, version: str = VERSION) -> dict[str, Any]:
    """Whether the model can answer now."""
    _input(model, version)
    health.readyz()
    return {"name": model, "ready": True}


@blueprint.get("/models/<model>/config")
@blueprint.get("/models/<model>/versions/<version>/config")
def config(model: str, version: str = VERSION) -> dict[str, Any]:
    """The model as Triton's configuration would say it, with the normalisation of a tensor."""
    _, shape = _input(model, version)
    classifier = current_classifier()
    engine, settings = classifier.engine(), classifier.settings
    # As many as a body has room for, with a little left for the JSON before them.
    room = (settings.max_upload_bytes - 1024) // (4 * math.prod(shape))
    most = max(1, min(settings.max_queue, room))
    preprocessing, classes = engine.model.preprocessing, len(engine.labels)
    normalisation = {"mean": preprocessing.mean, "std": preprocessing.std}
    if shape:
        wanted = {"data_type": "TYPE_FP32", "format": "FORMAT_NCHW", "dims": list(shape)}
    else:  # its batches have no dimension of their own, in Triton's way of counting
        wanted = {"data_type": "TYPE_STRING", "format": "FORMAT_NONE", "dims": [-1]}
    return {
        "name": model,
        "platform": "pytorch_eager",
        "backend": "pytorch",
        "max_batch_size": most if shape else 0,
        "input": [{"name": INPUT, **wanted}],
        "output": [
            {
                "name": OUTPUT,
                "data_type": "TYPE_FP32",
                "dims": [classes] if shape else [-1, classes],
            }
        ],
        "parameters": {
            key: {"string_value": ",".join(map(str, values))}
            for key, values in normalisation.items()
        },
    }


@blueprint.get("/models/stats")
@blueprint.get("/models/<model>/stats")
@blueprint.get("/models/<model>/versions/<version>/stats")
def stats(model: str | None = None, version: str = VERSION) -> dict[str, Any]:
    """What the model has done since the start, in all processes, under whichever name."""
    model = current_classifier().name if model is None else model
    _input(model, version)
    readings = current_metrics().readings()

    def sum_of(metric: str, **labels: str) -> dict[str, int]:
        total = readings.total(f"predictor_{metric}_seconds_sum", **labels)
        count = readings.total(f"predictor_{metric}_seconds_count", **labels)
        return {"count": int(count), "ns": int(total * 1e9)}

    nothing = {"count": 0, "ns": 0}
    last = max(readings.values("predictor_last_prediction_timestamp_seconds"), default=0)
    return {
        "model_stats": [
            {
                "name": model,
                "version": VERSION,
                "last_inference": int(last * 1000),
                "inference_count": int(readings.total("predictor_batch_size_sum")),
                "execution_count": int(readings.total("predictor_batch_size_count")),
                "inference_stats": {
                    "success": sum_of("prediction", outcome="success"),
                    "fail": sum_of("prediction", outcome="fail"),
                    "queue": sum_of("queue"),
                    "compute_input": sum_of("decode"),
                    "compute_infer": sum_of("inference"),
                    "compute_output": nothing,
                    "cache_hit": nothing,
                    "cache_miss": nothing,
                },
                "batch_stats": [],
            }
        ]
    }


def _input(model: str, version: str) -> tuple[str, tuple[int, ...]]:
    """What the model takes under this name: a datatype, and one image's shape.

    Raises:
        UnknownModel: it is not served under this name, or not in this version.
    """
    classifier = current_classifier()
    wants_tensor = model == classifier.name + TENSOR
    expect_model(classifier.name if wants_tensor else model, version, [VERSION])
    crop = classifier.engine().model.preprocessing.crop
    return ("FP32", (3, crop, crop)) if wants_tensor else ("BYTES", ())


# Inference


@blueprint.post("/models/<model>/infer")
@blueprint.post("/models/<model>/versions/<version>/infer")
def infer(model: str, version: str = VERSION) -> Response:
    """Score the images of the one input."""
    classifier = current_classifier()
    with classifier.admit():
        expected = _input(model, version)
        with _turn_to_unpack(classifier.settings):
            content, binary = split(_body(), request.headers.get(HEADER), *expected)
            tensor = read_input(content.get("inputs"), binary, classifier.settings.max_queue)
            images = _images(classifier, tensor)
        wanted, its_id = _wanted(content), content.get("id")
        if its_id is not None and not (isinstance(its_id, str) and len(its_id) <= MAX_ID):
            raise BadRequest(f"id is a string of at most {MAX_ID} characters, where it is given.")
        logits = all_or_error(score(images))
    its_id = current_exchange().id if its_id is None else sayable(its_id)
    answer = {"model_name": model, "model_version": VERSION, "id": its_id}
    return _respond(answer, _output(classifier, logits, wanted), wanted.binary)


@contextmanager
def _turn_to_unpack(settings: Settings) -> Iterator[None]:
    if not _unpacking.acquire(timeout=settings.request_timeout_s):
        raise DeadlineExceeded("There was no time to unpack the request; the server is busy.")
    try:
        yield
    finally:
        _unpacking.release()


def _body(limit: int | None = None) -> bytes:
    """The body, decompressed if it was compressed; of so many bytes, or as many as any body."""
    encoding = request.content_encoding or "identity"
    with current_exchange().timings.measure("read"):
        limit = limit or request.max_content_length or 0
        return decompress(read_as_sent(request), encoding, limit)


def _images(classifier: Classifier, tensor: Tensor) -> list[Image]:
    """The images of the one input, each a file or prepared pixels."""
    if not tensor.shape or not tensor.shape[0]:
        raise BadRequest(f"A shape of {tensor.shape} has no image.")
    if not isinstance(tensor.data, np.ndarray):
        if tensor.shape[1:] not in ([], [1]):
            raise BadRequest(f"Of BYTES a shape of [N] is wanted, not {tensor.shape}.")
        return all_or_error(tensor.data)
    preprocessing = classifier.engine().model.preprocessing
    side = preprocessing.crop
    if tensor.shape[1:] != [3, side, side]:
        raise BadRequest(f"A shape of [N, 3, {side}, {side}] is wanted, not {tensor.shape}.")
    batch = tensor.data.reshape(tensor.shape)
    if tensor.datatype == "UINT8":
        return list(np.ascontiguousarray(batch.transpose(0, 2, 3, 1)))
    if not np.abs(batch).max() <= LARGEST:  # as it is not, where one is not a number
        raise BadRequest(f"A normalised image has no elements beyond ±{LARGEST:,}.")
    return list(preprocessing.pixels(batch))


def _wanted(content: dict[str, Any]) -> Wanted:
    """The one output as it is asked for, or as it is given to who does not ask."""
    binary = parameters_of(content).get("binary_data_output", False)
    outputs = content.get("outputs")
    if outputs is None or outputs == []:
        outputs = [{"name": OUTPUT}]
    if not isinstance(outputs, list) or not all(isinstance(one, dict) for one in outputs):
        raise BadRequest("outputs is a list of objects, where it is given.")
    if [one.get("name") for one in outputs] != [OUTPUT]:
        raise BadRequest(f"The model has one output, {OUTPUT!r}.")
    parameters = parameters_of(outputs[0])
    binary = parameters.get("binary_data", binary)
    classes = as_integer(parameters.get("classification", 0))
    if not isinstance(binary, bool):
        raise BadRequest("binary_data and binary_data_output are true or false.")
    if any(name.startswith("shared_memory") for name in parameters):
        raise BadRequest("Shared memory is not written here; the output is in the answer.")
    if classes is None or classes < 0:
        raise BadRequest("classification is a number of classes.")
    return Wanted(binary, classes)


def _output(classifier: Classifier, logits: Sequence[Logits], wanted: Wanted) -> Tensor:
    """The logits, or the best classes as ``logit:index:name``."""
    count = len(logits)
    if not wanted.classes:
        batch = np.stack(logits)
        return Tensor("FP32", list(batch.shape), batch.ravel())
    labels = classifier.engine().labels
    classes = min(wanted.classes, len(labels))
    best = [
        f"{one[p.class_index]:.6f}:{p.class_index}:{p.class_name}".encode()
        for one in logits
        for p in rank(one, labels, classes)
    ]
    return Tensor("BYTES", [count, classes], best)


def _respond(answer: dict[str, Any], output: Tensor, is_binary: bool) -> Response:
    written, binary = write_output(OUTPUT, output, is_binary)
    response = jsonify(answer | {"outputs": [written]})
    if is_binary:
        head = response.get_data().rstrip()
        response.set_data(head + binary)
        response.mimetype = "application/octet-stream"
        response.headers[HEADER] = str(len(head))
    return compress(response)
