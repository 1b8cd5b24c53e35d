"""Read single fields of a protobuf message in a file, without its schema and without its data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

BYTES = 2  # wire type of what has a length: texts, bytes and messages


def fields(file: BinaryIO, wanted: int, end: int) -> Iterator[int]:
    """Yield each field with this number of the message from the file's position to ``end``.

    A whole number is yielded itself. Of a field with a length, its end is yielded, and the file is
    at its begin.
    """
    while file.tell() < end:
        key, value = _varint(file), _varint(file)
        after = file.tell()
        if key & 7 == BYTES:
            after = value = after + value
        if key >> 3 == wanted:
            yield value
        file.seek(after)


def _varint(file: BinaryIO) -> int:
    value = shift = 0
    while True:
        (byte,) = file.read(1)
        value |= (byte & 127) << shift
        if byte < 128:
            return value
        shift += 7
