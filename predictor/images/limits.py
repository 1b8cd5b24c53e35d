"""Refuse small files that would keep a parser busy for minutes or fill the memory.

Most of Pillow's parsers are written in Python, and some take quadratic time.
"""

import io
import re
import struct
from collections import Counter

from PIL import Image

from predictor.errors import TooLarge, UnsupportedImage

MAX_READS = 200_000  # a photo needs some thousands; text, read byte by byte, some millions
MAX_TAG_VALUES = 100_000  # in one tag of a TIFF; one tag lists all strips or tiles
MAX_RATIONALS = 1000  # in one tag of a TIFF; each of them takes 6 µs
# Pillow allocates each row by itself, without letting other threads run. JPEG, WebP, GIF and AVIF
# have hardly more either.
MAX_ROWS = 65_535
STEP = 1_000_000  # bytes that are searched while all other threads wait, which takes 20 ms
MAX_SLOW_PIXELS = 5_000_000  # if the decoder is in Python, as for run-length encoded BMP
# Of one kind, in a JPEG. libjpeg writes progressive JPEGs with 10 scans. Extended XMP and depth
# maps take many APP segments.
MAX_SEGMENTS, MAX_APP_SEGMENTS = 100, 500
MAX_FRAME_HEADERS = 1  # of a JPEG. Pillow makes an object for every three bytes of one
MAX_COMPRESSED = 100  # chunks of a PNG with a profile or text, of up to 1 MB each
MAX_CHUNKS = 5000  # of a WebP; each frame of an animation is one
MAX_EXIF = 150_000  # bytes; a camera's EXIF has at most 64 kB, as one segment of a JPEG limits it
GROUP_TAGS = {34665, 34853, 40965}  # of EXIF, positions and interoperability, in a TIFF

SEGMENT_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd8\xff])")  # of a JPEG; a length follows
FRAME_HEADERS = b"\xc0\xc1\xc2\xc3\xc5\xc6\xc7\xc9\xca\xcb\xcd\xce\xcf"
START_OF_SCAN, END_OF_IMAGE, APP1 = b"\xda", b"\xd9", b"\xe1"
# The types of TIFF tags that Pillow does not unpack value by value, and those of rationals.
BYTE_TYPES, RATIONAL_TYPES = (1, 2, 6, 7), (5, 10)
TILE_WIDTH_TAG, TILE_LENGTH_TAG, COMPRESSION_TAG = 322, 323, 259
JPEG_IN_TIFF = {6, 7}  # values of the tag of compression
# In a TIFF: a progressive, lossless or arithmetic JPEG, which may have many scans.
SLOW_JPEG = re.compile(rb"\xff[\xc2\xc6\xc9-\xcb\xcd-\xce]\0[\x0b\x0e\x11\x14][\x08\x0c]")


class LimitedFile(io.BytesIO):
    """A file in memory that may be read at most ``MAX_READS`` times."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read like ``BytesIO.read``; raise TooLarge above the limit."""
        self.reads += 1
        if self.reads > MAX_READS:
            raise TooLarge("The image consists of too many small pieces. Re-save it.")
        return super().read(size)


def check_parts(data: bytes) -> int:
    """Raise TooLarge if Pillow would join, unpack or decompress too many parts one by one.

    Return the number of scans of a JPEG, and 1 for other files.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _check_segments(data)
    if is_tiff(data):
        _check_tags(data)
    elif data.startswith(b"\x89PNG"):
        if sum(map(data.count, (b"iCCP", b"zTXt", b"iTXt"))) > MAX_COMPRESSED:
            raise TooLarge(f"The PNG has more than {MAX_COMPRESSED} texts or profiles. Re-save it.")
    elif data[8:12] == b"WEBP":
        _check_chunks(data)
    return 1


def _check_chunks(data: bytes) -> None:
    """Refuse a WebP of many chunks: the decoder reads them while all other threads wait."""
    at, chunks = 12, 0
    end = min(len(data), 8 + int.from_bytes(data[4:8], "little"))  # others may follow the image
    while at + 8 <= end:
        at += 8 + (size := int.from_bytes(data[at + 4 : at + 8], "little")) + size % 2
        if (chunks := chunks + 1) > MAX_CHUNKS:
            raise TooLarge(f"The WebP has more than {MAX_CHUNKS:,} chunks. Re-save it.")


def _search(pattern: re.Pattern[bytes], data: bytes, begin: int) -> re.Match[bytes] | None:
    for step in range(begin, len(data), STEP):
        if found := pattern.search(data, step, step + STEP + 10):  # no match is longer
            return found
    return None


def _check_segments(data: bytes) -> int:
    """Refuse a JPEG with too many scans or segments of one kind. Return the number of scans.

    Each scan may update all pixels, and Pillow needs quadratic time to join EXIF segments. Data
    after the end of the image, such as the video in a phone's photo, is not counted.
    """
    kinds: Counter[bytes] = Counter()
    offset, exif, frames = 2, 0, 0
    while (found := _search(SEGMENT_MARKER, data, offset)) and found[1] != END_OF_IMAGE:
        kinds[found[1]] += 1
        most = MAX_APP_SEGMENTS if b"\xe0" <= found[1] <= b"\xef" else MAX_SEGMENTS
        if kinds[found[1]] > most:
            raise TooLarge(
                f"The JPEG has more than {most} scans or segments of one kind. Re-save it."
            )
        if (frames := frames + (found[1] in FRAME_HEADERS)) > MAX_FRAME_HEADERS:
            raise TooLarge("The JPEG has several frames. Re-save it.")
        length = max(2, int.from_bytes(data[found.end() : found.end() + 2], "big"))
        if found[1] == APP1 and data.startswith(b"Exif\0\0", found.end() + 2):
            exif += length
        if exif > MAX_EXIF:
            raise TooLarge(f"The JPEG has more than {MAX_EXIF:,} bytes of EXIF. Re-save it.")
        offset = found.end() + length
    return kinds[START_OF_SCAN]


def is_tiff(data: bytes) -> bool:
    """Return whether the data begins like a TIFF or a BigTIFF."""
    return data[:2] in (b"II", b"MM") and data[2:4] in (b"*\0", b"\0*", b"+\0", b"\0+")


def hide_groups(data: bytes) -> bytes:
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


def _check_tags(data: bytes) -> None:
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
    jpeg = any(JPEG_IN_TIFF & {at & 0xFFFF, at >> 16, at >> 48} for at in codecs)
    if jpeg and _search(SLOW_JPEG, data, 0):
        raise TooLarge("The TIFF has a progressive JPEG inside. Re-save it as baseline JPEG.")


def check_header(image: Image.Image, max_pixels: int, inside: int = 0) -> int:
    """Check the header of an image; return how many pixels are decoded from the file.

    ``inside`` is how many pixels are in its frames, if that is known.

    Raises:
        TooLarge: the image or a TIFF's tiles have too many pixels, or too many for a slow decoder.
        UnsupportedImage: the image is a PPM as text.
    """
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise TooLarge(
            f"The image has {image.width} × {image.height} = {pixels:,} pixels;"
            f" at most {max_pixels:,} are accepted. Send a smaller image."
        )
    if image.height > MAX_ROWS:
        raise TooLarge(f"The image has {image.height:,} rows; at most {MAX_ROWS:,} are accepted.")
    tile: list[tuple[str, ...]] = getattr(image, "tile", [])
    codec = tile[0][0] if tile else ""
    if codec == "ppm_plain":
        raise UnsupportedImage("A PPM as text (P1, P2, P3) is not supported. Re-save it as binary.")
    if codec in Image.DECODERS and pixels > MAX_SLOW_PIXELS:
        raise TooLarge(
            f"An image with this compression may have at most {MAX_SLOW_PIXELS:,} pixels."
            " Save it as JPEG or PNG."
        )
    # Tiles are decoded whole, also where they are much larger than the image.
    tags = getattr(image, "tag_v2", {})
    width, height = tags.get(TILE_WIDTH_TAG) or 1, tags.get(TILE_LENGTH_TAG) or 1
    pixels = -(-image.width // width) * width * (-(-image.height // height) * height)
    pixels = max(pixels, inside)
    if pixels > max_pixels:
        raise TooLarge(
            f"The image has tiles or frames of more than {max_pixels:,} pixels. Re-save it."
        )
    return pixels
