"""What is particular to TIFF: tags are checked before Pillow reads them, and tiles are counted."""

import re
import struct

from PIL import Image

from predictor.errors import TooLarge, UnsupportedImage
from predictor.images.limits import MAX_READS, Checked, search

MAX_TAG_VALUES = 100_000  # in one tag; one tag lists all strips or tiles
MAX_RATIONALS = 1000  # in one tag; each of them takes 6 µs
GROUP_TAGS = {34665, 34853, 40965}  # of EXIF, positions and interoperability
# The types of tags that Pillow does not unpack value by value, and those of rationals.
BYTE_TYPES, RATIONAL_TYPES = (1, 2, 6, 7), (5, 10)
TILE_WIDTH_TAG, TILE_LENGTH_TAG, COMPRESSION_TAG = 322, 323, 259
JPEG_COMPRESSIONS = {6, 7}  # values of the tag of compression
# A progressive, lossless or arithmetic JPEG, which may have many scans.
SLOW_JPEG = re.compile(rb"\xff[\xc2\xc6\xc9-\xcb\xcd-\xce]\0[\x0b\x0e\x11\x14][\x08\x0c]")


def is_tiff(data: bytes) -> bool:
    """Return whether the data begins like a TIFF or a BigTIFF."""
    return data[:2] in (b"II", b"MM") and data[2:4] in (b"*\0", b"\0*", b"+\0", b"\0+")


def check(data: bytes) -> Checked:
    """Refuse a TIFF if a tag has too many values: Pillow unpacks them one by one.

    Refuse progressive JPEG in a TIFF, too: its scans are not in the estimated cost.
    """
    if data.startswith(b"MM\0+"):  # Pillow takes it for a TIFF that is not big
        raise UnsupportedImage("A BigTIFF with the most significant byte first is not supported.")
    _, _, tags = _read_tags(data)
    for _, kind, values, _ in tags:
        most = MAX_RATIONALS if kind in RATIONAL_TYPES else MAX_TAG_VALUES
        if kind not in BYTE_TYPES and values > most:
            raise TooLarge(f"The TIFF has a tag with more than {most:,} values. Re-save it.")
    # In which bytes of its field a short value is depends on the byte order.
    codecs = [at for tag, _, _, at in tags if tag == COMPRESSION_TAG]
    jpeg = any(JPEG_COMPRESSIONS & {at & 0xFFFF, at >> 16, at >> 48} for at in codecs)
    if jpeg and search(SLOW_JPEG, data, 0):
        raise TooLarge("The TIFF has a progressive JPEG inside. Re-save it as baseline JPEG.")
    return Checked(_hide_groups(data))


def count_pixels(image: Image.Image) -> int:
    """Return how many pixels are decoded: tiles whole, also where they are larger than the image.

    An image of another format has no tiles.
    """
    tags = getattr(image, "tag_v2", {})
    width, height = tags.get(TILE_WIDTH_TAG) or 1, tags.get(TILE_LENGTH_TAG) or 1
    pixels: int = -(-image.width // width) * width * (-(-image.height // height) * height)
    return pixels


def _hide_groups(data: bytes) -> bytes:
    """Return a TIFF without its groups of EXIF tags: Pillow unpacks all their values one by one."""
    begin, entry, tags = _read_tags(data)
    if not any(tag[0] in GROUP_TAGS for tag in tags):
        return data
    hidden = bytearray(data)
    for number, tag in enumerate(tags):
        if tag[0] in GROUP_TAGS:
            at = begin + number * entry.size
            hidden[at : at + 2] = bytes(2)
    return bytes(hidden)


def _read_tags(data: bytes) -> tuple[int, struct.Struct, list[tuple[int, int, int, int]]]:
    """Return where the tags of a TIFF begin, their format, and their fields."""
    order = "<" if data.startswith(b"II") else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    count = struct.Struct(order + ("Q" if big else "H"))
    entry = struct.Struct(order + ("HHQQ" if big else "HHII"))
    (entries,) = count.unpack_from(data, offset)
    first = offset + count.size
    entries = min(entries, MAX_READS, (len(data) - first) // entry.size)
    return first, entry, list(entry.iter_unpack(data[first : first + entries * entry.size]))
