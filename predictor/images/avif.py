"""Refuse AVIF files that hide many AV1 frames in one image.

The decoder decodes all frames of an item, layers or frames that are not shown, to get one picture.
The OBUs are those of the AV1 specification.
"""

import struct
from collections import defaultdict
from collections.abc import Iterator

from predictor.errors import TooLarge
from predictor.images.av1 import has_own_size, read_sequence
from predictor.images.boxes import boxes, hide_metadata, reader, type_of_item
from predictor.images.limits import Checked

MAX_OBUS = 5_000  # of a file; a phone's photo has some hundreds
MAX_FRAMES = 2  # of an item, or of the first sample of a track
MAX_SAMPLES = 10_000  # of a track, as frames; the decoder makes an object for each of them
# Of which a table of samples has one each, by kind.
SAMPLE_TABLES = {b"stsz": b"stsz", b"stz2": b"stsz", b"stco": b"stco", b"co64": b"stco",
                 b"stsc": b"stsc", b"stts": b"stts"}  # fmt: skip
LISTS, MAX_LIST = (
    (b"ipma", b"iref", b"dimg", b"stsc", b"stts"),
    8_000,
)  # bytes; 200 tiles have 2,000
LAYERS = (b"lsel", b"a1op", b"a1lx")
SEQUENCE_HEADER = 1  # a type of OBUs
FRAMES = (3, 6, 7)  # with a frame's header; decoders take a redundant one (7) if it is the first


def check(data: bytes) -> Checked:
    """Count the frames of an AVIF, and hide its EXIF from Pillow.

    Raises:
        TooLarge: the file has too many frames, layers, pieces or boxes, or too much metadata.
    """
    data = hide_metadata(data)
    _check_tables(data)
    return Checked(data, pixels=max(_count_pixels(data), _largest(data)))


def _count_pixels(data: bytes) -> int:
    """Return half of the pixels of all frames: a picture may have a second frame with its alpha.

    An item's frame may be larger than the picture: the decoder scales it down.

    Raises:
        TooLarge: an image has layers, more than ``MAX_FRAMES`` frames, or several pieces; or the
            decoder takes a frame's size from elsewhere than from the item's sequence header.
    """
    left, pixels = MAX_OBUS, 0
    for begin, end in _images(data):
        sequence, frames = None, 0
        for kind, at in _obus(data, begin, min(end, len(data))):
            if kind == SEQUENCE_HEADER and sequence is None:
                sequence = read_sequence(data[at : at + 100])
            elif kind == SEQUENCE_HEADER or (kind in FRAMES and sequence is None):
                raise TooLarge("The AVIF has an image without one sequence header. Re-save it.")
            elif kind in FRAMES and sequence is not None:
                if has_own_size(data[at : at + 10], sequence):
                    raise TooLarge("The AVIF has AV1 frames of several sizes. Re-save it.")
                frames += 1
                pixels += sequence.pixels
            left -= 1
            if frames > MAX_FRAMES or left < 0:
                raise TooLarge("The AVIF has too many AV1 frames in one image. Re-save it.")
    return pixels // 2


def _largest(data: bytes) -> int:
    """Return the pixels of the largest picture or track, to whose size a frame is scaled."""
    largest = 0
    for kind, begin, end in boxes(data):
        if kind in (b"ispe", b"tkhd"):  # whole numbers of 32 bits; a track's have 16 bits more
            at, bits = (begin + 4, 0) if kind == b"ispe" else (end - 8, 16)
            width, height = struct.unpack_from(">II", data, at)
            largest = max(largest, (width >> bits) * (height >> bits))
    return largest


def _check_tables(data: bytes) -> None:
    """Refuse long lists, which the decoder searches again and again, and second ones of a kind.

    It holds up all other threads meanwhile: 128 kB took 16 s.
    """
    seen: set[bytes] = set()
    chunks = most = 0  # most samples in a chunk
    for kind, begin, end in boxes(data):
        count = int.from_bytes(data[begin + 4 : begin + 8], "big")
        if kind == b"stbl":
            seen, chunks, most = set(), 0, 0
        if kind in SAMPLE_TABLES:
            if SAMPLE_TABLES[kind] in seen:
                raise TooLarge("The AVIF has two lists of the same kind. Re-save it.")
            seen.add(SAMPLE_TABLES[kind])
        if kind in LISTS and end - begin > MAX_LIST:
            raise TooLarge("The AVIF has long lists of its parts. Re-save it.")
        if kind in (b"stco", b"co64"):
            chunks = count
        elif kind == b"stsc":  # entries of three numbers; the second is that of samples
            entries = data[begin + 8 : min(end, begin + 8 + 12 * count)]
            found = struct.iter_unpack(">3I", entries[: len(entries) // 12 * 12])
            most = max([0, *(samples for _, samples, _ in found)])
        if chunks * most > MAX_SAMPLES:
            raise TooLarge(f"The AVIF has more than {MAX_SAMPLES:,} frames. Send one of them.")


def _images(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where the data of each image, and the first sample of each track, begin and end.

    An item that nothing calls another thing is an image.
    """
    items: list[tuple[int, bool, int, int]] = []
    insides: list[int] = []  # where the item data box begins
    kinds = defaultdict[int, set[bytes]](set)  # of an item, by its number
    size = offset = 0  # of the first sample of a track
    for kind, begin, _ in boxes(data):
        if kind in LAYERS or len(items) > MAX_OBUS or len(insides) > 1:
            raise TooLarge("The AVIF has layers, or too many items. Re-save it without layers.")
        if kind == b"iloc":
            items += _items(data, begin)
        elif kind == b"infe":
            number, at = type_of_item(data, begin)
            kinds[number].add(data[at : at + 4])
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
    for number, inside, begin, end in items:
        if not kinds[number] or b"av01" in kinds[number]:
            for base in insides if inside else [0]:
                yield base + begin, base + end


def _items(data: bytes, at: int) -> Iterator[tuple[int, bool, int, int]]:
    """Yield for each item its number, whether an item data box has it, its begin and its end."""
    number = reader(data, at)
    version, sizes = number(4) >> 24, number(2)
    offset_size, length_size, base_size, index_size = (sizes >> n & 15 for n in (12, 8, 4, 0))
    id_size = 4 if version == 2 else 2
    if (count := number(id_size)) > MAX_OBUS:
        raise TooLarge("The AVIF has too many items. Re-save it.")
    for _ in range(count):
        identity = number(id_size)
        inside = bool(version and number(2) & 15)
        number(2)
        begin = number(base_size)
        if number(2) != 1:
            raise TooLarge("The AVIF has an image in several pieces. Re-save it.")
        number(index_size if version else 0)
        begin += number(offset_size)
        yield identity, inside, begin, begin + (number(length_size) or len(data))


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
