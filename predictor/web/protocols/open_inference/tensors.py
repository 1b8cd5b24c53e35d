"""The Open Inference Protocol's tensors: JSON or bytes ↔ arrays and images."""

from __future__ import annotations

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
from predictor.web.params import as_integer, parameters_of
from predictor.web.uploads import check_count, from_base64, parse_json

HEADER = "Inference-Header-Content-Length"
INPUT = "image"
DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}
LENGTH = struct.Struct("<I")  # before each element of BYTES
MAX_RANK, MAX_SIDE = 4, 2**31  # of a shape; a batch of images has no more


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor, row by row.

    ``data`` is flat: an array of :data:`DTYPES`, or of BYTES a list of its elements.
    """

    datatype: str
    shape: list[int]
    data: NDArray[Any] | Sequence[bytes | RequestError]


def split(
    body: bytes, header: str | None, datatype: str, shape: Sequence[int]
) -> tuple[dict[str, Any], bytes]:
    """Split a request into its JSON and the binary data that follow it.

    Args:
        body: all of it.
        header: the JSON's length, as :data:`HEADER` says; None: all is JSON. ``0``: all is data,
            and the request is made up for it.
        datatype: of the input, for a request that does not say.
        shape: of one image, likewise.

    Raises:
        BadRequest: it cannot be split there, or the JSON is no object.
    """
    if header == "0":
        return _raw(body, datatype, shape)
    length = len(body)
    if header is not None:
        length = int(header) if re.fullmatch("[0-9]{1,18}", header) else 0
        if not 0 < length <= len(body):
            raise BadRequest(f"{HEADER} should be in (0, {len(body)}]; it is {header[:20]!r}.")
    content = parse_json(body[:length])
    if not isinstance(content, dict):
        raise BadRequest('The JSON is wanted as an object with "inputs".')
    return content, body[length:]


def _raw(body: bytes, datatype: str, shape: Sequence[int]) -> tuple[dict[str, Any], bytes]:
    """Of BYTES the body is one element as it is; else as many images as it has numbers for."""
    if datatype == "BYTES":
        count, body = 1, LENGTH.pack(len(body)) + body
    else:
        count = len(body) // (DTYPES[datatype].itemsize * math.prod(shape))
    only = {
        "name": INPUT,
        "datatype": datatype,
        "shape": [count, *shape],
        "parameters": {"binary_data_size": len(body)},
    }
    return {"inputs": [only], "parameters": {"binary_data_output": True}}, body


def read_input(inputs: Any, binary: bytes, max_images: int) -> Tensor:
    """Read a request's one input: its data are in the JSON, or what follows it.

    What a caller says is compared before anything is unpacked: a few bytes can say much.

    Raises:
        BadRequest: it is another input, not what it says, or not all that follows is its.
        TooLarge: more than ``max_images``.
    """
    given = _only(inputs)
    datatype, shape = _described(given)
    if shape:
        check_count(shape[0], max_images)
    said = parameters_of(given).get("binary_data_size")
    size = 0 if said is None else as_integer(said)
    if size is None or not 0 <= size <= len(binary):
        raise BadRequest(f"binary_data_size is {said!r}; there is less.")
    if size != len(binary):
        raise BadRequest(f"{len(binary) - size} bytes follow that are no input's.")
    count = math.prod(shape)
    if said is None:
        return Tensor(datatype, shape, _from_json(datatype, given.get("data"), count))
    return Tensor(datatype, shape, _from_bytes(datatype, binary, count))


def _only(inputs: Any) -> dict[str, Any]:
    """The one input, by its name."""
    if not isinstance(inputs, list):
        raise BadRequest("inputs is wanted, a list of tensors.")
    if not all(isinstance(given, dict) for given in inputs):
        raise BadRequest("An input is an object with name, datatype, shape and data.")
    names = [given.get("name") for given in inputs[:5]]
    if not all(isinstance(name, str) for name in names):
        raise BadRequest("An input has a name and a datatype.")
    if names != [INPUT]:
        found = ", ".join(repr(name[:30]) for name in names) or "none"
        raise BadRequest(f"The model has one input, {INPUT!r}; the request has {found}.")
    only: dict[str, Any] = inputs[0]
    return only


def _described(given: dict[str, Any]) -> tuple[str, list[int]]:
    datatype, shape = given.get("datatype"), given.get("shape")
    sides = [as_integer(side) for side in shape[: MAX_RANK + 1]] if isinstance(shape, list) else []
    whole = [side for side in sides if side is not None and 0 <= side <= MAX_SIDE]
    if not isinstance(shape, list) or len(whole) < len(sides) or len(sides) > MAX_RANK:
        raise BadRequest(f"shape is wanted, a list of at most {MAX_RANK} whole numbers.")
    if datatype not in ("BYTES", *DTYPES):
        known = ", ".join(["BYTES", *DTYPES])
        raise BadRequest(f"datatype is {datatype!r}; it can be {known}.")
    return datatype, whole


def _from_json(datatype: str, data: Any, count: int) -> NDArray[Any] | list[bytes | RequestError]:
    if not isinstance(data, list):
        raise BadRequest("data is wanted, a list, or binary_data_size.")
    elements = _flat(data)
    _check_elements(len(elements), count)
    if datatype == "BYTES":
        return [from_base64(text) for text in elements]
    try:  # NumPy would read numbers out of text, too, and make room for the longest of it
        if not set(map(type, elements)) <= {int, float}:
            raise ValueError
        array = np.array(elements, np.float64)
    except (ValueError, OverflowError):
        raise BadRequest(f"data is wanted as numbers that {datatype} has.") from None
    if datatype == "UINT8" and not ((array >= 0) & (array <= 255) & (array % 1 == 0)).all():
        raise BadRequest("A UINT8 is a whole number from 0 to 255.")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        return array.astype(DTYPES[datatype])


def _flat(data: list[Any]) -> list[Any]:
    """The elements of nested lists; where they are ragged, a list is left among them."""
    for _ in range(MAX_RANK - 1):
        if not data or not all(type(part) is list for part in data):
            break
        data = list(chain.from_iterable(data))
    return data


def _from_bytes(datatype: str, data: bytes, count: int) -> NDArray[Any] | list[bytes]:
    if datatype == "BYTES":
        elements = list(islice(_elements(data), count + 1))
        _check_elements(len(elements), count)
        return elements
    dtype = DTYPES[datatype]
    if len(data) % dtype.itemsize:
        raise BadRequest(f"{len(data)} bytes are no whole number of {datatype}.")
    _check_elements(len(data) // dtype.itemsize, count)
    return np.frombuffer(data, dtype)


def _check_elements(there: int, count: int) -> None:
    if there != count:
        raise BadRequest(f"There are {there} elements, and by the shape {count}.")


def _elements(data: bytes) -> Iterator[bytes]:
    place = 0
    while place < len(data):
        begin = place + LENGTH.size
        if begin > len(data):
            raise BadRequest("An element's length is cut off.")
        place = begin + LENGTH.unpack_from(data, place)[0]
        if place > len(data):
            raise BadRequest("An element is longer than the data.")
        yield data[begin:place]


def write_output(name: str, tensor: Tensor, is_binary: bool) -> tuple[dict[str, Any], bytes]:
    """Write a response's output, and what follows the JSON if its data are binary."""
    output = {"name": name, "datatype": tensor.datatype, "shape": tensor.shape}
    if is_binary:
        data = _to_bytes(tensor)
        return output | {"parameters": {"binary_data_size": len(data)}}, data
    if isinstance(tensor.data, np.ndarray):
        return output | {"data": tensor.data.tolist()}, b""
    return output | {"data": [element.decode() for element in _bytes_of(tensor)]}, b""


def _to_bytes(tensor: Tensor) -> bytes:
    if isinstance(tensor.data, np.ndarray):
        return tensor.data.astype(DTYPES[tensor.datatype], copy=False).tobytes()
    return b"".join(LENGTH.pack(len(one)) + one for one in _bytes_of(tensor))


def _bytes_of(tensor: Tensor) -> list[bytes]:
    return [element for element in tensor.data if isinstance(element, bytes)]
