"""Boxes: what AVIF and HEIC files consist of, by ISO/IEC 14496-12."""

import io
import struct
from collections.abc import Callable, Iterator

from predictor.errors import TooLarge

MAX_BOXES = 20_000  # of a file; a phone's photo has some hundreds
MAX_NESTING = 10  # a track's boxes are in five others
MAX_META = 1_000_000  # bytes of metadata; a photo's have some kB
META = (b"meta", b"moov", b"ipma", b"stsc")  # the last two are read whole, wherever they are
PICTURES = (b"hvc1", b"av01", b"grid", b"iden")  # what phones write, and cameras
# The size of the fields before the boxes inside a box.
PARENTS = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0}
PARENTS |= {b"stbl": 0, b"iinf": 6, b"iref": 4}


def reader(data: bytes | memoryview, begin: int = 0) -> Callable[[int], int]:
    """Return a function that reads the next whole number of so many bytes; 0 behind the end."""
    stream = io.BytesIO(data)
    stream.seek(begin)
    return lambda size: int.from_bytes(stream.read(size), "big")


def boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each box's type, and where its content begins and ends; parents first.

    Raises:
        TooLarge: the file has too many boxes, boxes in boxes in boxes, or too much metadata.
    """
    size = 0
    for number, (kind, begin, end) in enumerate(_boxes(data, 0, len(data))):
        size += end - begin if kind in META else 0
        if size > MAX_META or number > MAX_BOXES:
            raise TooLarge("The image has too much metadata or too many boxes. Re-save it.")
        yield kind, begin, end


def hide_metadata(data: bytes) -> bytes:
    """Return the file without EXIF, XMP, and pictures that phones and cameras do not write.

    Pillow and its plugin would read and encode all of the EXIF and XMP to correct the orientation.
    The decoder turns the image by the file's own boxes. libheif would allocate the canvas of an
    overlay (iovl) before it compares the size, which may be any.
    """
    hidden = bytearray(data)
    for kind, begin, _ in boxes(data):
        if kind == b"infe":
            _, at = type_of_item(data, begin)
            if data[at : at + 4] not in PICTURES:
                hidden[at : at + 4] = b"none"
    return bytes(hidden)


def type_of_item(data: bytes, begin: int) -> tuple[int, int]:
    """Return the number of an item, of 16 or 32 bits, and where its type is, 16 bits later."""
    at = begin + (10 if data[begin : begin + 1] > b"\2" else 8)
    return int.from_bytes(data[begin + 4 : at - 2], "big"), at


def _boxes(data: bytes, begin: int, end: int, depth: int = 0) -> Iterator[tuple[bytes, int, int]]:
    if depth > MAX_NESTING:
        raise TooLarge("The image has boxes in boxes in boxes. Re-save it.")
    while begin + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, begin)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", data, begin + 8), 16
        stop = min(begin + size, end) if size else end
        yield kind, begin + head, stop
        if kind in PARENTS:
            inside = begin + head + PARENTS[kind]
            if kind == b"iinf" and data[begin + head : begin + head + 1] != b"\0":
                inside += 2  # a count of 32 bits
            yield from _boxes(data, inside, stop, depth + 1)
        begin = max(stop, begin + head)
