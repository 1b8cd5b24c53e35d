"""The Open Inference Protocol's tensors: JSON or bytes ↔ arrays and images."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictor.errors import BadRequest, RequestError
from predictor.web.uploads import as_integer, from_base64, parse_json

HEADER = "Inference-Header-Content-Length"
INPUT = "image"
DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}
LENGTH = struct.Struct("<I")  # before each element of BYTES
JSON_KINDS = {"FP32": "iuf", "UINT8": "iu"}  # of NumPy's; it would read numbers out of text, too


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor, row by row.

    ``data`` is flat: an array of :data:`DTYPES`, or of BYTES a list of its elements.
    """

    name: str
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


def read_tensors(inputs: Any, binary: bytes) -> list[Tensor]:
    """Read a request's ``inputs``: each has its data in the JSON, or next in what follows it.

    Raises:
        BadRequest: they are not what they say, or not all that follows is theirs.
    """
    if not isinstance(inputs, list):
        raise BadRequest("inputs is wanted, a list of tensors.")
    place, tensors = 0, []
    for given in inputs:
        name, datatype, shape = _described(given)
        said = parameters_of(given).get("binary_data_size")
        if said is None:
            data = _from_json(name, datatype, given.get("data"))
        else:
            size = as_integer(said)
            if size is None or not 0 <= size <= len(binary) - place:
                raise BadRequest(f"{name}: binary_data_size is {said!r}; there is less.")
            data = _from_bytes(name, datatype, binary[place : place + size])
            place += size
        if len(data) != math.prod(shape):
            raise BadRequest(f"{name}: there are {len(data)} elements for a shape of {shape}.")
        tensors.append(Tensor(name, datatype, shape, data))
    if place != len(binary):
        raise BadRequest(f"{len(binary) - place} bytes follow that are no input's.")
    return tensors


def parameters_of(part: Any) -> dict[str, Any]:
    """The parameters of a request, an input or an output; none, where there are none.

    Raises:
        BadRequest: they are no object.
    """
    parameters = part.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise BadRequest("parameters is an object, where it is given.")
    return parameters


def _described(given: Any) -> tuple[str, str, list[int]]:
    if not isinstance(given, dict):
        raise BadRequest("An input is an object with name, datatype, shape and data.")
    name, datatype, shape = (given.get(key) for key in ("name", "datatype", "shape"))
    if not isinstance(name, str) or not isinstance(datatype, str):
        raise BadRequest("An input has a name and a datatype.")
    sides = [as_integer(side) for side in shape] if isinstance(shape, list) else [None]
    whole = [side for side in sides if side is not None and side >= 0]
    if len(whole) < len(sides):
        raise BadRequest(f"{name}: shape is wanted, a list of whole numbers.")
    if datatype != "BYTES" and datatype not in DTYPES:
        known = ", ".join(["BYTES", *DTYPES])
        raise BadRequest(f"{name}: datatype is {datatype!r}; it can be {known}.")
    return name, datatype, whole


def _from_json(name: str, datatype: str, data: Any) -> NDArray[Any] | list[bytes | RequestError]:
    if not isinstance(data, list):
        raise BadRequest(f"{name}: data is wanted, a list, or binary_data_size.")
    if datatype == "BYTES":
        return [from_base64(text) for text in _flat(data)]
    try:
        array = np.array(data)
    except (ValueError, OverflowError):  # ragged, or deeper than NumPy goes
        array = np.array(None)
    if array.dtype.kind not in JSON_KINDS[datatype] and array.size:
        raise BadRequest(f"{name}: data is wanted as numbers that {datatype} has.")
    dtype = DTYPES[datatype]
    if datatype == "UINT8" and array.size and not 0 <= array.min() <= array.max() <= 255:
        raise BadRequest(f"{name}: a UINT8 is a number from 0 to 255.")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        return array.astype(dtype).ravel()


def _flat(data: list[Any]) -> Iterator[Any]:
    """The elements of a list of lists; deeper than BYTES of images can lie, it is no image."""
    for part in data:
        yield from part if isinstance(part, list) else [part]


def _from_bytes(name: str, datatype: str, data: bytes) -> NDArray[Any] | list[bytes | RequestError]:
    if datatype == "BYTES":
        return list(_elements(name, data))
    dtype = DTYPES[datatype]
    if len(data) % dtype.itemsize:
        raise BadRequest(f"{name}: {len(data)} bytes are no whole number of {datatype}.")
    return np.frombuffer(data, dtype)


def _elements(name: str, data: bytes) -> Iterator[bytes]:
    place = 0
    while place < len(data):
        begin = place + LENGTH.size
        if begin > len(data):
            raise BadRequest(f"{name}: an element's length is cut off.")
        place = begin + LENGTH.unpack_from(data, place)[0]
        if place > len(data):
            raise BadRequest(f"{name}: an element is longer than the data.")
        yield data[begin:place]


def write_tensors(outputs: Sequence[tuple[Tensor, bool]]) -> tuple[list[dict[str, Any]], bytes]:
    """Write a response's ``outputs``, and what follows the JSON of those that are binary."""
    described, binary = [], b""
    for tensor, is_binary in outputs:
        output: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
        }
        if is_binary:
            data = _to_bytes(tensor)
            output["parameters"] = {"binary_data_size": len(data)}
            binary += data
        elif isinstance(tensor.data, np.ndarray):
            output["data"] = tensor.data.tolist()
        else:
            output["data"] = [element.decode() for element in _bytes_of(tensor)]
        described.append(output)
    return described, binary


def _to_bytes(tensor: Tensor) -> bytes:
    if isinstance(tensor.data, np.ndarray):
        return tensor.data.astype(DTYPES[tensor.datatype], copy=False).tobytes()
    return b"".join(LENGTH.pack(len(one)) + one for one in _bytes_of(tensor))


def _bytes_of(tensor: Tensor) -> list[bytes]:
    return [element for element in tensor.data if isinstance(element, bytes)]
