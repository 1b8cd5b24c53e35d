"""What is particular to TIFF: tags are checked before Pillow reads them, and tiles are counted."""

import re
import struct

from PIL import Image, TiffImagePlugin

from predictor.errors import TooLarge, UnsupportedImage
from predictor.images import jpeg, unread
from predictor.images.limits import MAX_READS, Checked, search
from predictor.images.samples import BLOCK, FLOAT, UNDEFINED, UNSIGNED, WHOLE_BITS, Samples

MAX_TAG_VALUES = 100_000  # in one tag; one tag lists all strips or tiles
MAX_RATIONALS = 1000  # in one tag; each of them takes 6 µs
GROUP_TAGS = {34665, 34853, 40965}  # of EXIF, positions and interoperability
# The types of tags that Pillow does not unpack value by value, and those of rationals.
BYTE_TYPES, RATIONAL_TYPES = (1, 2, 6, 7), (5, 10)
WIDTH_TAG, LENGTH_TAG, BITS_TAG, COMPRESSION_TAG, PHOTOMETRIC_TAG = 256, 257, 258, 259, 262
FILL_TAG, ORIENTATION_TAG, CHANNELS_TAG, STRIP_TAG, PLANES_TAG = 266, 274, 277, 278, 284
PREDICTOR_TAG, TILE_WIDTH_TAG, TILE_LENGTH_TAG, EXTRA_TAG, FORMAT_TAG = 317, 322, 323, 338, 339
SUBFILE_TAG, SUBFILES_TAG, DNG_TAG, RAW_PHOTOMETRICS = 254, 330, 50706, (32803, 34892)
# Describe samples, and are hidden where bytes are read in place of them.
SAMPLE_TAGS = (ORIENTATION_TAG, PLANES_TAG, PREDICTOR_TAG, EXTRA_TAG, FORMAT_TAG)
STRIPS_TAG, STRIP_BYTES_TAG, TILES_TAG, TILE_BYTES_TAG = 273, 279, 324, 325
# What each reader must take for the same: libtiff would take the first of two values and types that
# are unknown here, Pillow the last and not those.
STRUCTURE = {
    WIDTH_TAG, LENGTH_TAG, BITS_TAG, COMPRESSION_TAG, PHOTOMETRIC_TAG, FILL_TAG, STRIPS_TAG,
    CHANNELS_TAG, STRIP_TAG, STRIP_BYTES_TAG, PLANES_TAG, PREDICTOR_TAG, TILE_WIDTH_TAG,
    TILE_LENGTH_TAG, TILES_TAG, TILE_BYTES_TAG, EXTRA_TAG, FORMAT_TAG,
}  # fmt: skip
STRUCTURE_TYPES = {3, 4, 16}  # SHORT, LONG and LONG8
MAX_CHANNELS = 10
NUMBER_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
BYTE_COMPRESSIONS = {1, 5, 8, 32773, 32946, 34925, 50000}  # that know no samples, such as LZW
OLD_JPEG, JPEG = 6, 7  # values of the tag of compression
JPEG_END = b"\xff\xd9"  # some writers fill up after it
PADDING = 31  # pixels, at most, from the edge of an image to the end of its last block
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
    tags = _Tags(data)
    if _is_raw(tags):
        raise UnsupportedImage(unread.message("camera RAW (DNG, NEF, ARW, …)", unread.DEVELOP))
    for _, kind, values, _ in tags.fields:
        most = MAX_RATIONALS if kind in RATIONAL_TYPES else MAX_TAG_VALUES
        if kind not in BYTE_TYPES and values > most:
            raise TooLarge(f"The TIFF has a tag with more than {most:,} values. Re-save it.")
    is_jpeg = tags.first(COMPRESSION_TAG, 1) in (OLD_JPEG, JPEG)
    if is_jpeg and search(SLOW_JPEG, data, 0):
        raise TooLarge("The TIFF has a progressive JPEG inside. Re-save it as baseline JPEG.")
    _check_structure(tags)
    # Pillow unpacks the values of groups one by one.
    if any(field[0] in GROUP_TAGS for field in tags.fields):
        tags.data = tags.replaced(dict.fromkeys(GROUP_TAGS))
    if samples := _samples(tags):
        return Checked(_as_bytes(tags, samples), samples=samples)
    return Checked(tags.data)


def count_pixels(image: Image.Image, samples: Samples | None) -> int:
    """Return how many pixels are decoded: tiles whole, also where they are larger than the image.

    An image of another format has no tiles. Where each byte is read as a pixel, four bytes count
    as one, and so does each wide sample, which becomes a 32-bit float.
    """
    tags = getattr(image, "tag_v2", {})
    width, height = tags.get(TILE_WIDTH_TAG) or 1, tags.get(TILE_LENGTH_TAG) or 1
    # As it is stored: Pillow gives the size of the turned image.
    across, down = tags.get(WIDTH_TAG, image.width), tags.get(LENGTH_TAG, image.height)
    pixels: int = -(-across // width) * width * (-(-down // height) * height)
    if samples is None:
        return pixels
    return max(pixels // 4, samples.size[0] * samples.size[1], samples.count * samples.wide)


def _check_structure(tags: "_Tags") -> None:
    """Raise ValueError if readers could differ, or if strips or tiles, then black, are missing."""
    kinds = [(tag, kind) for tag, kind, _, _ in tags.fields if tag in STRUCTURE]
    counts = {tag: count for tag, _, count, _ in tags.fields}
    tiled = TILE_WIDTH_TAG in counts
    if (
        len(dict(kinds)) < len(kinds) or not {kind for _, kind in kinds} <= STRUCTURE_TYPES
        or counts.keys() & ({STRIPS_TAG, STRIP_BYTES_TAG} if tiled else {TILES_TAG, TILE_BYTES_TAG})
    ):  # fmt: skip
        raise ValueError("The structure of the TIFF is ambiguous.")
    width, height = tags.first(WIDTH_TAG, 0), tags.first(LENGTH_TAG, 0)
    across = tags.first(TILE_WIDTH_TAG, 0) if tiled else width
    down = tags.first(TILE_LENGTH_TAG, 0) if tiled else tags.first(STRIP_TAG, height)
    blocks = -(-width // max(1, across)) * -(-height // max(1, down))
    if tags.first(PLANES_TAG, 1) == 2:
        blocks *= tags.first(CHANNELS_TAG, 1)
    sizes = tags.numbers(TILE_BYTES_TAG if tiled else STRIP_BYTES_TAG, most=MAX_TAG_VALUES)
    least = height * (width * sum(tags.bits) // 8) if tags.first(COMPRESSION_TAG, 1) == 1 else 0
    places = tags.numbers(TILES_TAG if tiled else STRIPS_TAG, most=MAX_TAG_VALUES)
    is_jpeg = tags.first(COMPRESSION_TAG, 1) == JPEG  # whose parts are looked at
    needed = blocks if sizes or is_jpeg else 0
    if len(places) < blocks or len(sizes) < needed or 0 < sum(sizes) < least:
        raise ValueError("Strips or tiles of the TIFF are missing.")
    view = memoryview(tags.data)
    parts = [view[at : at + size] for at, size in zip(places, sizes, strict=False)]
    if sum(map(len, parts)) > len(tags.data):  # each use would be decoded, and not be charged
        raise TooLarge("Strips or tiles of the TIFF share their data. Re-save it.")
    if is_jpeg:
        for part in map(bytes, parts):
            _check_jpeg(part, across, min(down, height))


def _check_jpeg(part: bytes, across: int, down: int) -> None:
    """Raise an error if a strip or tile of this size is cut off, larger, or has many scans."""
    if JPEG_END not in part[-16:]:  # libjpeg adds grey
        raise ValueError("A JPEG in the TIFF is cut off.")
    width, height, components = jpeg.frame(part)
    larger = width > across + PADDING or height > down + PADDING
    if larger or part.count(b"\xff\xda") > components:
        raise TooLarge("The TIFF has a JPEG of many scans, or larger than its strip. Re-save it.")


def _is_raw(tags: "_Tags") -> bool:
    """Return whether a camera's raw image is in the file; Pillow would read its small preview."""
    preview = tags.first(SUBFILE_TAG, 0) == 1 and tags.numbers(SUBFILES_TAG)
    photometric = tags.first(PHOTOMETRIC_TAG, 0)
    return bool(preview or tags.numbers(DNG_TAG) or photometric in RAW_PHOTOMETRICS)


class _Tags:
    """The first directory of a TIFF."""

    def __init__(self, data: bytes) -> None:
        self.data, self.order = data, "<" if data.startswith(b"II") else ">"
        # A BigTIFF has words of 8 bytes for values and offsets, which are of type LONG8.
        word, self.type = ("Q", 16) if data[2:4] in (b"+\0", b"\0+") else ("I", 4)
        self.size = struct.calcsize(word)
        count = struct.Struct(self.order + ("Q" if word == "Q" else "H"))
        self.entry = struct.Struct(f"{self.order}HH{word}{word}")
        (offset,) = struct.unpack_from(self.order + word, data, self.size)
        (entries,) = count.unpack_from(data, offset)
        self.begin = offset + count.size
        entries = min(entries, MAX_READS, (len(data) - self.begin) // self.entry.size)
        self.fields: list[tuple[int, int, int, int]] = list(
            self.entry.iter_unpack(data[self.begin : self.begin + entries * self.entry.size])
        )

    @property
    def bits(self) -> tuple[int, ...]:
        """Bits of each sample of a pixel."""
        channels = min(self.first(CHANNELS_TAG, 1), MAX_CHANNELS + 1)
        bits = self.numbers(BITS_TAG, 1)
        return bits * channels if len(bits) == 1 else bits[:channels]

    def numbers(self, tag: int, *default: int, most: int = 10) -> tuple[int, ...]:
        """Return the first values of a tag of whole numbers."""
        for place, (found, kind, count, at) in enumerate(self.fields):
            if found == tag and kind in NUMBER_TYPES:
                unit = NUMBER_TYPES[kind]
                if count * struct.calcsize(unit) <= self.size:  # in the entry itself, at its end
                    at = self.begin + (place + 1) * self.entry.size - self.size
                return struct.unpack_from(f"{self.order}{min(count, most)}{unit}", self.data, at)
        return default

    def first(self, tag: int, default: int) -> int:
        """Return the first value of a tag."""
        return (*self.numbers(tag), default)[0]

    def replaced(self, values: dict[int, int | None]) -> bytes:
        """Return the file with these whole numbers as values of tags. None hides a tag."""
        changed = bytearray(self.data)
        for place, (tag, *_) in enumerate(self.fields):
            at = self.begin + place * self.entry.size
            if tag in values and (value := values[tag]) is None:
                changed[at : at + 2] = bytes(2)
            elif tag in values:
                self.entry.pack_into(changed, at, tag, self.type, 1, value)
        return bytes(changed)


def _samples(tags: _Tags) -> Samples | None:
    """Return how the samples are stored if Pillow cannot unpack them, or not correctly."""
    photometric, form = tags.first(PHOTOMETRIC_TAG, 0), tags.first(FORMAT_TAG, UNSIGNED)
    kind = UNSIGNED if form == UNDEFINED else form  # as TIFF 6.0 advises
    channels, fill = tags.first(CHANNELS_TAG, 1), tags.first(FILL_TAG, 1)
    planes, predictor = tags.first(PLANES_TAG, 1), tags.first(PREDICTOR_TAG, 1)
    compression = tags.first(COMPRESSION_TAG, 1)
    size = tags.first(WIDTH_TAG, 0), tags.first(LENGTH_TAG, 0)
    bits, extra = tags.bits, tags.numbers(EXTRA_TAG)
    raw_planes = planes == 2 and compression == 1
    if planes == 2 and not raw_planes and extra and not any(extra):  # Pillow leaves them out
        bits, extra = bits[: -len(extra)], ()
    key = (b"II" if tags.order == "<" else b"MM", photometric, (form,), fill, bits, extra)
    depths = (8,) if raw_planes else (1, 2, 4, 8, 16)
    sound = (bits[0] in depths or kind != UNSIGNED) and not (raw_planes and 0 in extra)
    if key in TiffImagePlugin.OPEN_INFO and sound:
        return None
    readable = bits[0] in WHOLE_BITS or (kind == UNSIGNED and 1 <= bits[0] <= 32)
    shown = {0: "L", 1: "L", 2: "RGB"}.get(photometric, "")
    alpha = {1: "a", 2: "A"}.get(extra[0], "") if extra and len(shown) < channels else ""
    if (
        0 in size or not readable or not shown or len(shown) > channels or len(set(bits)) > 1
        or compression not in BYTE_COMPRESSIONS or predictor > 2
        or (predictor == 2 and bits[0] not in WHOLE_BITS) or channels > MAX_CHANNELS
        or kind > FLOAT
    ):  # fmt: skip
        return None
    if size[0] * channels > BLOCK:
        raise TooLarge(f"The TIFF has more than {BLOCK:,} samples in a row. Re-save it.")
    return Samples(
        size, shown + alpha, channels, bits[0], kind, tags.order, planar=planes == 2,
        inverted=photometric == 0, differences=predictor == 2,
        tile_rows=tags.first(TILE_LENGTH_TAG, 0), orientation=tags.first(ORIENTATION_TAG, 1),
    )  # fmt: skip


def _as_bytes(tags: _Tags, samples: Samples) -> bytes:
    """Return the file as a grey one with a pixel for each byte, for any decompression."""
    values: dict[int, int | None] = dict.fromkeys(SAMPLE_TAGS)
    values |= {WIDTH_TAG: samples.row_bytes, LENGTH_TAG: samples.rows, BITS_TAG: 8}
    values |= {CHANNELS_TAG: 1, PHOTOMETRIC_TAG: 1}
    values[TILE_WIDTH_TAG] = samples.bytes_of(tags.first(TILE_WIDTH_TAG, 0))
    strip = tags.first(STRIP_TAG, samples.size[1])
    if samples.tile_rows == 0 and samples.planar and samples.size[1] % min(strip, samples.size[1]):
        raise UnsupportedImage(
            "A TIFF of separate channels whose strips do not fill it is not supported. Save it"
            " with interleaved channels."
        )
    values[STRIP_TAG] = min(strip, samples.size[1])
    return tags.replaced(values)
