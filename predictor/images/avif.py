"""Refuse AVIF files that hide many AV1 frames in one image.

The decoder decodes all frames of an item, layers or frames that are not shown, to get one picture.
The OBUs are those of the AV1 specification.
"""

import struct
from collections.abc import Iterator

from predictor.errors import TooLarge
from predictor.images.boxes import boxes, hide_metadata, reader
from predictor.images.limits import Checked

MAX_OBUS = 5_000  # of a file; a phone's photo has some hundreds
MAX_FRAMES = 2  # of an item, or of the first sample of a track
MAX_SAMPLES = 10_000  # of a track, as frames; the decoder makes an object for each of them
LAYERS = (b"lsel", b"a1op", b"a1lx")
SEQUENCE_HEADER, FRAME_HEADER, FRAME = 1, 3, 6  # types of OBUs


def check(data: bytes) -> Checked:
    """Count the frames of an AVIF, and hide its EXIF from Pillow.

    Raises:
        TooLarge: the file has too many frames, layers, pieces or boxes, or too much metadata.
    """
    data = hide_metadata(data)
    _check_samples(data)
    return Checked(data, pixels=_count_pixels(data))


def _count_pixels(data: bytes) -> int:
    """Return half of the pixels of all frames: a picture may have a second frame with its alpha.

    An item's frame may be larger than the picture: the decoder scales it down.

    Raises:
        TooLarge: an image has layers, more than ``MAX_FRAMES`` frames, or several pieces.
    """
    left, pixels, missing, largest = MAX_OBUS, 0, 0, 0
    for begin, end in _images(data):
        frames = most = 0
        for kind, at in _obus(data, begin, min(end, len(data))):
            frames += kind in (FRAME_HEADER, FRAME)
            if kind == SEQUENCE_HEADER:
                most = max(most, _sequence_pixels(data[at : at + 100]))
            left -= 1
            if frames > MAX_FRAMES or left < 0:
                raise TooLarge("The AVIF has too many AV1 frames in one image. Re-save it.")
        largest = max(largest, most)
        pixels += frames * most
        missing += 0 if most else frames
    # Without a sequence header, that of the tile decoded before applies, in whatever order.
    return (pixels + missing * largest) // 2


def _check_samples(data: bytes) -> None:
    """Refuse a track of many samples: to count them stops all other threads."""
    chunks = most = 0  # most samples in a chunk
    for kind, begin, end in boxes(data):
        count = int.from_bytes(data[begin + 4 : begin + 8], "big")
        if kind in (b"stco", b"co64"):
            chunks = max(chunks, count)
        elif kind == b"stsc":  # entries of three numbers; the second is that of samples
            entries = data[begin + 8 : min(end, begin + 8 + 12 * count)]
            found = struct.iter_unpack(">3I", entries[: len(entries) // 12 * 12])
            most = max([most, *(samples for _, samples, _ in found)])
    if chunks * most > MAX_SAMPLES:
        raise TooLarge(f"The AVIF has more than {MAX_SAMPLES:,} frames. Send one of them.")


def _sequence_pixels(header: bytes) -> int:
    """Return the most pixels of a frame, from the content of a sequence header."""
    bits = f"{int.from_bytes(header, 'big'):0{8 * len(header)}b}"
    at = 0

    def number(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    number(4)
    if number(1):  # the short header of a still picture
        number(5)
    else:
        if number(1):  # times
            number(64)
            if number(1):  # the interval, as a number of variable length
                number(bits[at:].index("1") * 2 + 1)
            if number(1):
                raise TooLarge("The AVIF has the model of a video decoder. Re-save it without.")
        delays = number(1)
        if number(5):  # operating points, less one
            raise TooLarge("The AVIF has layers. Re-save it without layers.")
        number(12)
        if number(5) > 7:
            number(1)
        if delays and number(1):
            number(4)
    widths, heights = number(4) + 1, number(4) + 1
    return (number(widths) + 1) * (number(heights) + 1)


def _images(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where the data of each item, and the first sample of each track, begin and end."""
    items: list[tuple[bool, int, int]] = []
    insides: list[int] = []  # where the item data box begins
    size = offset = 0  # of the first sample of a track
    for kind, begin, _ in boxes(data):
        if kind in LAYERS or len(items) > MAX_OBUS or len(insides) > 1:
            raise TooLarge("The AVIF has layers, or too many items. Re-save it without layers.")
        if kind == b"iloc":
            items += _items(data, begin)
        elif kind == b"idat":
            insides.append(begin)
        elif kind == b"stbl":
            size = offset = 0
        elif kind == b"stsz":
            one, _, first = struct.unpack(">3I", data[begin + 4 : begin + 16].ljust(12, b"\0"))
            size = one or first
        elif kind in (b"stco", b"co64"):
            (offset,) = struct.unpack_from(">I" if kind == b"stco" else ">Q", data, begin + 8)
        if kind in (b"stsz", b"stco", b"co64") and size and offset:
            yield offset, offset + size
    for inside, begin, end in items:
        for base in insides if inside else [0]:
            yield base + begin, base + end


def _items(data: bytes, at: int) -> Iterator[tuple[bool, int, int]]:
    """Yield for each item whether it is in an item data box, and where it begins and ends."""
    number = reader(data, at)
    version, sizes = number(4) >> 24, number(2)
    offset_size, length_size, base_size, index_size = (sizes >> n & 15 for n in (12, 8, 4, 0))
    id_size = 4 if version == 2 else 2
    if (count := number(id_size)) > MAX_OBUS:
        raise TooLarge("The AVIF has too many items. Re-save it.")
    for _ in range(count):
        number(id_size)
        inside = bool(version and number(2) & 15)
        number(2)
        begin = number(base_size)
        if number(2) != 1:
            raise TooLarge("The AVIF has an image in several pieces. Re-save it.")
        number(index_size if version else 0)
        begin += number(offset_size)
        yield inside, begin, begin + (number(length_size) or len(data))


def _obus(data: bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the types of the OBUs from ``at`` to ``end``, and where their contents begin."""
    while at < end:
        head = data[at]
        at += 2 if head & 4 else 1
        size = shift = 0
        while head & 2 and at < end and shift < 56:  # at most 8 bytes
            size |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 128:
                break
        yield head >> 3 & 15, at
        if not head & 2:  # without a size: the last
            return
        at += size
