"""Inference: one input of images, one output of logits or classes."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from flask import Response, jsonify, request

from predictor.engine.call import all_or_error
from predictor.engine.classifier import Image
from predictor.engine.ranking import Prediction, rank
from predictor.engine.served import Served
from predictor.errors import BadRequest
from predictor.models.scorer import LoadedModel, Logits
from predictor.web.choosing import Fields
from predictor.web.params import as_integer, parameters_of
from predictor.web.problems import json_safe
from predictor.web.protocols.open_inference.compression import compress
from predictor.web.protocols.open_inference.tensors import (
    HEADER,
    INPUT,
    Tensor,
    parameters_of_tensor,
    read_input,
    split,
    write_output,
)
from predictor.web.protocols.open_inference.views import (
    OUTPUT,
    blueprint,
    by_path,
    count_numbers,
    input_of,
    is_compressed,
    read_sent,
    unpack,
)
from predictor.web.request import (
    admitted,
    current_call,
    current_record,
    needs_slot,
    parsing,
)
from predictor.web.uploads import form_or_image

FIELDS = Fields((INPUT, "file", "data", "body"), json='{"inputs": […]}')
MAX_ID = 1024  # characters of a request's id
# A normalised photo is within ±3; with much larger values a network's numbers overflow.
MAX_ELEMENT = 10_000
# Values of JSON; to parse so many takes 1 ms. More, and what is compressed, takes turns. While
# photos did, 57 clients with 1.2 kB of gzip, which are 1 MB of numbers, made them wait for 4 s.
FEW = 10_000


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Options of the output that the client asked for."""

    binary: bool
    classes: int  # number of best classes to return (classification extension); 0: return logits


@blueprint.post("/models/<model>/infer")
@blueprint.post("/models/<model>/versions/<version>/infer")
@needs_slot("prediction", by_path)
def infer(model: str, version: str | None = None) -> Response:
    """Run the model on the images of the input, and respond with logits or classes."""
    with admitted() as served:
        content, images = _read(served, model)
        options, request_id = _output_options(content), _request_id(content)
        del content  # for the wait; members that are not used can take 80 MB
        logits = all_or_error(served.logits(images, current_call()))
        output = _output(served.model, logits, options)
    answer = {"model_name": model, "model_version": str(served.version), "id": request_id}
    return _respond(answer, output, options.binary)


def _read(served: Served, model: str) -> tuple[dict[str, Any], list[Image]]:
    """Return the JSON without its input, and the images. A form or a photo is a BYTES input."""
    settings, header, call = served.settings, request.headers.get(HEADER), current_call()
    sent_body = read_sent()
    with ExitStack() as turn:
        if is_compressed():
            numbers = count_numbers(sent_body, settings.max_upload_bytes)
            turn.enter_context(served.parser(call, len(sent_body), numbers))
        body = unpack(sent_body, settings.max_upload_bytes)
        if header is None and (sent := form_or_image(body, request, settings.max_queue, FIELDS)):
            return {}, _images(served.model, Tensor("BYTES", [len(sent.images)], sent.images))
        if not is_compressed():
            numbers, size = body.count(b","), len(body)
            many = numbers > FEW
            turn.enter_context(served.parser(call, size, numbers) if many else parsing("json"))
        content, binary = split(body, header, *input_of(served, model))
        tensor = read_input(content.pop("inputs", None), binary, settings.max_queue)
        return content, _images(served.model, tensor)


def _request_id(content: dict[str, Any]) -> str:
    given = content.get("id")
    if given is None:
        return current_record().id
    if not (isinstance(given, str) and len(given) <= MAX_ID):
        raise BadRequest(f'"id" must be a string of at most {MAX_ID} characters.')
    return json_safe(given)


def _images(loaded: LoadedModel, tensor: Tensor) -> list[Image]:
    """Return the images of the input, each an encoded file or prepared pixels."""
    if not tensor.shape or not tensor.shape[0]:
        raise BadRequest(f"The input has shape {tensor.shape}; it must have at least one image.")
    if not isinstance(tensor.data, np.ndarray):
        if tensor.shape[1:] not in ([], [1]):
            raise BadRequest(f"The BYTES input has shape {tensor.shape}; it must be [N].")
        return all_or_error(tensor.data)
    preprocessing = loaded.scorer.preprocessing
    height, width, channels = preprocessing.shape
    if tensor.shape[1:] != [channels, height, width]:
        raise BadRequest(
            f"The {tensor.datatype} input has shape {tensor.shape}; it must be"
            f" [N, {channels}, {height}, {width}]."
        )
    batch = tensor.data.reshape(tensor.shape)
    if tensor.datatype == "UINT8":
        return list(np.ascontiguousarray(batch.transpose(0, 2, 3, 1)))
    if not np.abs(batch).max() <= MAX_ELEMENT:  # `not … <=` also rejects NaN
        raise BadRequest(
            f"The FP32 input has an element outside ±{MAX_ELEMENT:,}. Normalise the images."
        )
    return list(preprocessing.pixels(batch))


def _output_options(content: dict[str, Any]) -> OutputOptions:
    """Parse the options of the output. Options that the client omits have their defaults."""
    binary = parameters_of(content).get("binary_data_output", False)
    outputs = content.get("outputs")
    if outputs is None or outputs == []:
        outputs = [{"name": OUTPUT}]
    if not isinstance(outputs, list) or not all(isinstance(one, dict) for one in outputs):
        raise BadRequest('"outputs" must be a list of objects.')
    if [one.get("name") for one in outputs] != [OUTPUT]:
        raise BadRequest(f'The model has one output, "{OUTPUT}"; "outputs" asks for another.')
    parameters = parameters_of_tensor(outputs[0])
    binary = parameters.get("binary_data", binary)
    classes = as_integer(parameters.get("classification", 0))
    if not isinstance(binary, bool):
        raise BadRequest('"binary_data" and "binary_data_output" must be true or false.')
    if classes is None or classes < 0:
        raise BadRequest('"classification" must be a whole number of classes.')
    return OutputOptions(binary, classes)


def _output(loaded: LoadedModel, logits: Sequence[Logits], options: OutputOptions) -> Tensor:
    """Return the logits, or the best classes of each image as ``value:index:name``."""
    count = len(logits)
    if not options.classes:
        batch = np.stack(logits)
        return Tensor("FP32", list(batch.shape), batch.ravel())
    classes = min(options.classes, len(loaded.labels))
    best = [
        f"{_value(one, p):.6f}:{p.class_index}:{p.class_name}".encode()
        for one in logits
        for p in rank(one, loaded.card, classes)
    ]
    return Tensor("BYTES", [count, classes], best)


def _value(logits: Logits, prediction: Prediction) -> float:
    """Return the class's logit, or its probability if one logit is for both classes."""
    return float(logits[prediction.class_index]) if len(logits) > 1 else prediction.probability


def _respond(answer: dict[str, Any], output: Tensor, is_binary: bool) -> Response:
    written, binary = write_output(OUTPUT, output, is_binary)
    response = jsonify(answer | {"outputs": [written]})
    if is_binary:
        head = response.get_data().rstrip()
        response.set_data(head + binary)
        response.mimetype = "application/octet-stream"
        response.headers[HEADER] = str(len(head))
    return compress(response)
