"""Tensors of the Open Inference Protocol: JSON or binary data ↔ arrays and encoded images."""

import math
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictor.errors import BadRequest, RequestError
from predictor.web.base64_text import from_base64
from predictor.web.choosing import check_count
from predictor.web.json_body import TURN, parse_json
from predictor.web.params import as_integer, parameters_of, quoted
from predictor.web.request import current_call

HEADER = "Inference-Header-Content-Length"
INPUT = "image"
DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}
LENGTH = struct.Struct("<I")  # precedes each element of a BYTES tensor
MAX_RANK, MAX_SIDE = 4, 2**31  # limits of a shape


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or an output."""

    datatype: str  # ``BYTES``, or a key of :data:`DTYPES`
    shape: list[int]
    # Flat, row by row. For ``BYTES`` a list; an error replaces an image that is not base64.
    data: NDArray[Any] | Sequence[bytes | RequestError]


def split(
    body: bytes, header: str | None, datatype: str, shape: Sequence[int]
) -> tuple[dict[str, Any], bytes]:
    """Split a body into its JSON and the binary data that follow the JSON.

    ``header`` is the JSON's length in bytes, from :data:`HEADER`. None: the whole body is JSON.
    ``0``: it is all data, and the JSON is made from the input's datatype and one image's shape.

    Raises:
        BadRequest: the length is wrong, or the JSON is not an object.
    """
    if header == "0":
        return _request_for(body, datatype, shape)
    length = len(body)
    if header is not None:
        length = int(header) if re.fullmatch("[0-9]{1,18}", header) else 0
        if not 0 < length <= len(body):
            raise BadRequest(
                f"{HEADER} is {header[:20]!r}; it must be the length of the JSON in bytes, at most"
                f" {len(body)}, the length of the body."
            )
    content = parse_json(body[:length], is_tensor=True, sent=current_call().budget.sent)
    if not isinstance(content, dict):
        raise BadRequest('The JSON must be an object with "inputs".')
    return content, body[length:]


def _request_for(body: bytes, datatype: str, shape: Sequence[int]) -> tuple[dict[str, Any], bytes]:
    """Make the JSON for a body of data: one BYTES element, or as many images as the body has."""
    if datatype == "BYTES":
        body = LENGTH.pack(len(body)) + body
    size = {"binary_data_size": len(body)}
    tensor = {"name": INPUT, "datatype": datatype, "shape": [-1, *shape], "parameters": size}
    return {"inputs": [tensor], "parameters": {"binary_data_output": True}}, body


def read_input(inputs: Any, binary: bytes, max_images: int) -> Tensor:
    """Read the one input of a request from the JSON's ``inputs`` and the ``binary`` data after it.

    Shape and sizes are checked before any image is decoded: a few bytes can ask for a large tensor.

    Raises:
        BadRequest: the input is not the model's, or its data do not match its shape and datatype.
        TooLarge: the shape has more than ``max_images`` images.
    """
    given = _only_input(inputs)
    datatype, shape = _datatype_and_shape(given)
    if shape:
        check_count(shape[0], max_images)
    data = [one] if isinstance(one := given.get("data"), str) else one  # as TorchServe's clients
    stated = parameters_of_tensor(given).get("binary_data_size")
    size = 0 if stated is None else as_integer(stated)
    if size is None or not 0 <= size <= len(binary):
        raise BadRequest(
            f'"binary_data_size" is {quoted(stated)}; it must be the number of bytes after the'
            f" JSON, {len(binary)}."
        )
    if size != len(binary):
        raise BadRequest(f"{len(binary) - size} bytes after the JSON belong to no input.")
    if stated is None:
        return Tensor(datatype, shape, _from_json(datatype, data, shape, max_images))
    return Tensor(datatype, shape, _from_bytes(datatype, binary, shape, max_images))


def parameters_of_tensor(tensor: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of an input or output. Raise BadRequest for shared memory."""
    parameters = parameters_of(tensor)
    if any(name.startswith("shared_memory") for name in parameters):
        raise BadRequest(
            "Shared memory is not supported. Send the input in the request; the output is in the"
            " response."
        )
    return parameters


def _only_input(inputs: Any) -> dict[str, Any]:
    if not isinstance(inputs, list):
        raise BadRequest('"inputs" must be a list of tensors.')
    if not all(isinstance(given, dict) for given in inputs):
        raise BadRequest("An input must be an object with name, datatype, shape and data.")
    names = [given.get("name") for given in inputs[:5]]
    if not all(isinstance(name, str) for name in names):
        raise BadRequest('The "name" of an input must be a string.')
    # Clients of TorchServe give an input of photos any name.
    if names != [INPUT] and not (len(names) == 1 and inputs[0].get("datatype") == "BYTES"):
        found = ", ".join(repr(name[:30]) for name in names) or "none"
        raise BadRequest(f"The model has one input, {INPUT!r}; the request has {found}.")
    only: dict[str, Any] = inputs[0]
    return only


def _datatype_and_shape(given: dict[str, Any]) -> tuple[str, list[int]]:
    datatype, shape = given.get("datatype"), given.get("shape")
    shape = [shape] if as_integer(shape) == -1 else shape  # as TorchServe's clients send it
    sides = [as_integer(side) for side in shape[: MAX_RANK + 1]] if isinstance(shape, list) else []
    whole = [side for side in sides if side is not None and 0 <= side <= MAX_SIDE]
    if sides[:1] == [-1]:  # as many images as there are data
        whole.insert(0, -1)
    if not isinstance(shape, list) or len(whole) < len(sides) or len(sides) > MAX_RANK:
        raise BadRequest(
            f'"shape" must be a list of at most {MAX_RANK} whole numbers from 0 to {MAX_SIDE:,};'
            " the first one may be -1."
        )
    if datatype not in ("BYTES", *DTYPES):
        known = " or ".join(DTYPES)
        raise BadRequest(f'"datatype" is {quoted(datatype)}; it must be BYTES, {known}.')
    return datatype, whole


def _from_json(
    datatype: str, data: Any, shape: list[int], max_images: int
) -> NDArray[Any] | list[bytes | RequestError]:
    if not isinstance(data, list):
        raise BadRequest('An input must have a list "data", or the parameter "binary_data_size".')
    elements = _flat(data)
    _check_elements(len(elements), shape, max_images)
    if datatype == "BYTES":
        return [from_base64(text) for text in elements]
    turns = range(0, len(elements) or 1, TURN)
    try:
        array = np.concatenate([_numbers(elements[turn : turn + TURN]) for turn in turns])
    except (ValueError, OverflowError):
        raise BadRequest(f'"data" must be a list of {datatype} numbers.') from None
    if datatype == "UINT8" and not ((array >= 0) & (array <= 255) & (array % 1 == 0)).all():
        raise BadRequest('"data" must have whole numbers from 0 to 255, because it is UINT8.')
    with np.errstate(over="ignore"):  # too large a number becomes infinite, and is refused later
        return array.astype(DTYPES[datatype])


def _numbers(elements: list[Any]) -> NDArray[np.float64]:
    # Check types first: NumPy would parse strings, and give each the size of the longest.
    if not set(map(type, elements)) <= {int, float}:
        raise ValueError
    return np.array(elements, np.float64)


def _flat(data: list[Any]) -> list[Any]:
    """Return the elements of nested lists. With ragged nesting, some elements are still lists."""
    for _ in range(MAX_RANK - 1):
        if not data or not all(type(part) is list for part in data):
            break
        data = list(chain.from_iterable(data))
    return data


def _from_bytes(
    datatype: str, data: bytes, shape: list[int], max_images: int
) -> NDArray[Any] | list[bytes]:
    if datatype == "BYTES":
        elements = list(islice(_elements(data), max_images + 1))  # one too many is enough to refuse
        _check_elements(len(elements), shape, max_images)
        return elements
    dtype = DTYPES[datatype]
    if len(data) % dtype.itemsize:
        raise BadRequest(
            f"The binary data has {len(data)} bytes, which is not a multiple of {dtype.itemsize},"
            f" the size of {datatype}."
        )
    _check_elements(len(data) // dtype.itemsize, shape, max_images)
    return np.frombuffer(data, dtype)


def _check_elements(found: int, shape: list[int], max_images: int) -> None:
    """Raise an error if the shape does not fit. A first side of -1 becomes what was found."""
    if shape[:1] == [-1]:
        one = math.prod(shape[1:]) or 1
        if found % one:
            raise BadRequest(
                f"The number of elements is {found}; one image, of shape {shape[1:]}, has {one}."
            )
        shape[0] = found // one
        check_count(shape[0], max_images)
    if found != (count := math.prod(shape)):
        raise BadRequest(f"The number of elements is {found}; the shape needs {count}.")


def _elements(data: bytes) -> Iterator[bytes]:
    offset = 0
    while offset < len(data):
        begin = offset + LENGTH.size
        if begin > len(data):
            raise BadRequest("The binary data ends within the length of an element.")
        offset = begin + LENGTH.unpack_from(data, offset)[0]
        if offset > len(data):
            raise BadRequest("An element is longer than the rest of the binary data.")
        yield data[begin:offset]


def write_output(name: str, tensor: Tensor, is_binary: bool) -> tuple[dict[str, Any], bytes]:
    """Return an output's JSON, and the bytes to send after it: none unless ``is_binary``."""
    output = {"name": name, "datatype": tensor.datatype, "shape": tensor.shape}
    if is_binary:
        data = _to_bytes(tensor)
        return output | {"parameters": {"binary_data_size": len(data)}}, data
    if isinstance(tensor.data, np.ndarray):
        return output | {"data": tensor.data.tolist()}, b""
    return output | {"data": [element.decode() for element in _byte_elements(tensor)]}, b""


def _to_bytes(tensor: Tensor) -> bytes:
    if isinstance(tensor.data, np.ndarray):
        return tensor.data.astype(DTYPES[tensor.datatype], copy=False).tobytes()
    return b"".join(LENGTH.pack(len(one)) + one for one in _byte_elements(tensor))


def _byte_elements(tensor: Tensor) -> list[bytes]:
    return [element for element in tensor.data if isinstance(element, bytes)]
