"""What is particular to TIFF: strips or tiles that are missing, raw images, and rare samples."""

import struct

from PIL import TiffImagePlugin

from predictor.errors import UnsupportedImage
from predictor.images import unread
from predictor.images.limits import Checked
from predictor.images.samples import FLOAT, UNDEFINED, UNSIGNED, WHOLE_BITS, Samples

WIDTH_TAG, LENGTH_TAG, BITS_TAG, COMPRESSION_TAG, PHOTOMETRIC_TAG = 256, 257, 258, 259, 262
FILL_TAG, ORIENTATION_TAG, CHANNELS_TAG, STRIP_TAG, PLANES_TAG = 266, 274, 277, 278, 284
PREDICTOR_TAG, TILE_WIDTH_TAG, TILE_LENGTH_TAG, EXTRA_TAG, FORMAT_TAG = 317, 322, 323, 338, 339
SUBFILE_TAG, SUBFILES_TAG, DNG_TAG, RAW_PHOTOMETRICS = 254, 330, 50706, (32803, 34892)
# Describe samples, and are hidden where bytes are read in place of them.
SAMPLE_TAGS = (ORIENTATION_TAG, PLANES_TAG, PREDICTOR_TAG, EXTRA_TAG, FORMAT_TAG)
STRIPS_TAG, STRIP_BYTES_TAG, TILES_TAG, TILE_BYTES_TAG = 273, 279, 324, 325
MAX_CHANNELS = 10
LARGE_TILE = 2**24  # pixels; the decoder fills a whole tile, and tiles have 512 × 512 as a rule
NUMBER_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
BYTE_COMPRESSIONS = {1, 5, 8, 32773, 32946, 34925, 50000}  # that know no samples, such as LZW
JPEG = 7  # a value of the tag of compression
JPEG_END = b"\xff\xd9"  # some writers fill up after it


def is_tiff(data: bytes) -> bool:
    """Return whether the data begins like a TIFF or a BigTIFF."""
    return data[:4] in TiffImagePlugin.PREFIXES


def check(data: bytes) -> Checked:
    """Find out whether Pillow can unpack a TIFF's samples, and whether it would show missing ones.

    Raises:
        UnsupportedImage: the file is a camera's raw image, or Pillow would misread it.
        ValueError: strips or tiles are missing, or much larger than the image.
    """
    if data.startswith(b"MM\0+"):  # Pillow takes it for a TIFF that is not big
        raise UnsupportedImage("A BigTIFF with the most significant byte first is not supported.")
    tags = _Tags(data)
    if _is_raw(tags):
        raise UnsupportedImage(unread.message("camera RAW (DNG, NEF, ARW, …)", unread.DEVELOP))
    filled = _check_blocks(tags)
    if samples := _samples(tags):
        return Checked(_as_bytes(tags, samples), samples=samples, filled=filled)
    return Checked(data, filled=filled)


def _check_blocks(tags: "_Tags") -> int:
    """Return how many pixels the strips or tiles have, which may be many more than the image.

    Raises:
        ValueError: they are too large, or some are missing, which would be black.
    """
    tiled = bool(tags.first(TILE_WIDTH_TAG, 0))
    width, height = tags.first(WIDTH_TAG, 0), tags.first(LENGTH_TAG, 0)
    across = tags.first(TILE_WIDTH_TAG, 0) if tiled else width
    down = tags.first(TILE_LENGTH_TAG, 0) if tiled else tags.first(STRIP_TAG, height)
    if tiled and across * down > max(LARGE_TILE, 4 * width * height):
        raise ValueError("The tiles of the TIFF are much larger than the image.")
    blocks = -(-width // max(1, across)) * -(-height // max(1, down))
    filled = blocks * across * (down if tiled else min(down, height))
    if tags.first(PLANES_TAG, 1) == 2:
        blocks *= tags.first(CHANNELS_TAG, 1)
    compression = tags.first(COMPRESSION_TAG, 1)
    sizes = tags.numbers(TILE_BYTES_TAG if tiled else STRIP_BYTES_TAG, most=blocks)
    places = tags.numbers(TILES_TAG if tiled else STRIPS_TAG, most=blocks)
    least = height * (width * sum(tags.bits) // 8) if compression == 1 else 0
    if len(places) < blocks or 0 < len(sizes) < blocks or 0 < sum(sizes) < least:
        raise ValueError("Strips or tiles of the TIFF are missing.")
    if compression == JPEG and any(
        JPEG_END not in tags.data[max(at, at + size - 16) : at + size]
        for at, size in zip(places, sizes, strict=False)
    ):
        raise ValueError("A JPEG in the TIFF is cut off.")
    return filled


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
        entries = min(entries, (len(data) - self.begin) // self.entry.size)
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
