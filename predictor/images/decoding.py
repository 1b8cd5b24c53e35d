"""Bytes → upright RGB image: the one step that meets hostile input."""

from __future__ import annotations

import contextlib
import io
import re
import struct
import warnings
from collections import Counter

import numpy as np
from PIL import Image, UnidentifiedImageError

from predictor.errors import BadRequest, DamagedImage, Overloaded, TooLarge, UnsupportedImage

# By content, never by name. Left out on purpose: what Pillow hands to another program (EPS)
# or what only a specialist sends; each format is one more parser for an attacker to try.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")

# What bounds the time: Pillow's parsers are Python that a small file can keep busy for minutes.
MAX_READS = 200_000  # a photo takes some thousands, a text one byte at a time some millions
MAX_TAG_VALUES = 100_000  # in one tag of a TIFF; each strip or tile is a value
MAX_SLOW_PIXELS = 5_000_000  # where Pillow's decoder is Python, too: BMP's runs
# libjpeg's own progressive script has 10 scans; an app's extended XMP or depth map fills APPs.
MAX_SEGMENTS, MAX_APP_SEGMENTS = 100, 500
MAX_PROFILES = 10

SEGMENT = re.compile(rb"\xff([^\x00\xd0-\xd8\xff])")  # of a JPEG: a marker that has a length
END_OF_IMAGE = b"\xd9"
# An AVIF is turned by its own boxes, whatever its EXIF says; Pillow would write that anew.
AVIF_EXIF = re.compile(rb"(infe.{8,10})Exif", re.DOTALL)
BYTES = (1, 2, 6, 7)  # TIFF's types that Pillow does not unpack value by value
TILE_WIDTH, TILE_LENGTH = 322, 323
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Each has numbers out of the file, so Python would keep every one of them for ever.
warnings.filterwarnings("ignore", module=r"PIL\.(Jpeg|Mpo|Tiff|Png|Gif|WebP|Avif|Bmp)ImagePlugin")


class _Metered(io.BytesIO):
    """The file, as long as it is not read in too many small pieces."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise TooLarge("The image is stored in too many small pieces; save it anew.")
        return super().read(size)


def decode(data: bytes, max_pixels: int, enough: int | None = None) -> Image.Image:
    """Decode an image's first frame as a person would see it: upright, RGB, alpha over white.

    Args:
        data: a whole file in one of :data:`FORMATS`.
        max_pixels: checked against the header, before a pixel is decoded.
        enough: pixels of the shorter side that suffice. A larger JPEG is then decoded at a
            half, a quarter or an eighth of its size, as long as that many are left; without
            it every pixel is decoded.

    Raises:
        BadRequest: there are no bytes.
        UnsupportedImage: not one of the formats.
        TooLarge: more than ``max_pixels``, or stored so that it would take too long to read.
        DamagedImage: anything else that Pillow stumbles over.
        Overloaded: no memory.
    """
    if not data:
        raise BadRequest("The image is empty: it has 0 bytes.")
    # Pillow's parsers raise whatever their author met (OSError, SyntaxError, struct.error,
    # zlib.error, KeyError …), so everything they raise on a stranger's bytes means one thing.
    try:
        with _open(data, max_pixels) as image:
            if enough is not None:
                image.draft(None, (enough, enough))
            image.load()
            _scale_key(image, data)
            return to_rgb(_upright(image))
    except (UnsupportedImage, TooLarge):
        raise
    except MemoryError:
        raise Overloaded("There is no memory to read the image now; try again.") from None
    except Exception as error:
        raise DamagedImage(
            "The image begins like one and cannot be decoded: it is damaged, was cut off, or is"
            " of a rare kind that is not read here."
        ) from error


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header only."""
    _check_parts(data)
    if data[4:8] == b"ftyp":
        data = AVIF_EXIF.sub(rb"\1none", data)
    try:
        image = Image.open(_Metered(data), formats=FORMATS)
    except UnidentifiedImageError:
        if begins_like_an_image(data):
            raise
        raise UnsupportedImage(
            "This is not an image in a format that is read here: JPEG, PNG, WebP, GIF, BMP, TIFF,"
            " AVIF or PPM."
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        # Pillow's own limits. The error is no OSError; the warning is raised only where
        # warnings are errors.
        raise TooLarge(f"The image has more than {max_pixels:,} pixels.") from None
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise TooLarge(
            f"The image has {image.width} × {image.height} = {pixels:,} pixels;"
            f" at most {max_pixels:,} are accepted. Send a smaller one."
        )
    _check_decoder(image, pixels, max_pixels)
    return image


def _check_parts(data: bytes) -> None:
    """Refuse what Pillow would join, unpack or decompress part by part for minutes."""
    if data.startswith(b"\xff\xd8\xff"):
        _check_segments(data)
    elif data[:2] in (b"II", b"MM") and data[2:4] in (b"*\0", b"\0*", b"+\0", b"\0+"):
        _check_tags(data)
    elif data.startswith(b"\x89PNG") and data.count(b"iCCP") > MAX_PROFILES:
        raise TooLarge(f"The PNG has more than {MAX_PROFILES} colour profiles; save it anew.")


def _check_segments(data: bytes) -> None:
    """A JPEG may go over all its pixels again with each scan, and EXIF is joined quadratically.

    What comes after the end of the image, a phone's video for example, does not count.
    """
    kinds: Counter[bytes] = Counter()
    place = 2
    while (found := SEGMENT.search(data, place)) and found[1] != END_OF_IMAGE:
        kinds[found[1]] += 1
        most = MAX_APP_SEGMENTS if b"\xe0" <= found[1] <= b"\xef" else MAX_SEGMENTS
        if kinds[found[1]] > most:
            raise TooLarge(f"The JPEG has more than {most} scans or segments; save it anew.")
        place = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2], "big"))


def _check_tags(data: bytes) -> None:
    """A TIFF's tags and strips are unpacked value by value."""
    order = "<" if data.startswith(b"II") else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    count = struct.Struct(order + ("Q" if big else "H"))
    entry = struct.Struct(order + ("HHQQ" if big else "HHII"))
    (entries,) = count.unpack_from(data, place)
    first = place + count.size
    entries = min(entries, MAX_READS, (len(data) - first) // entry.size)
    for _, kind, values, _ in entry.iter_unpack(data[first : first + entries * entry.size]):
        if kind not in BYTES and values > MAX_TAG_VALUES:
            raise TooLarge(f"The TIFF has more than {MAX_TAG_VALUES:,} strips; save it anew.")


def _check_decoder(image: Image.Image, pixels: int, max_pixels: int) -> None:
    """Refuse what the header allows and the decoder would need minutes or gigabytes for."""
    tile: list[tuple[str, ...]] = getattr(image, "tile", [])
    codec = tile[0][0] if tile else ""
    if codec == "ppm_plain":
        raise UnsupportedImage("PPM as text (P1, P2, P3) is not read here; save it as binary.")
    if codec in Image.DECODERS and pixels > MAX_SLOW_PIXELS:
        raise TooLarge(
            f"The image is of a kind that is read slowly, and has more than {MAX_SLOW_PIXELS:,}"
            " pixels; save it as JPEG or PNG."
        )
    tags = getattr(image, "tag_v2", {})
    if tags.get(TILE_WIDTH, 0) * tags.get(TILE_LENGTH, 0) > max_pixels:
        raise TooLarge(f"The TIFF has tiles of more than {max_pixels:,} pixels; save it anew.")


def begins_like_an_image(data: bytes) -> bool:
    """Whether the first bytes are one of the formats' signature, as Pillow tests it."""
    Image.init()
    accepts = (Image.OPEN[name][1] for name in FORMATS if name in Image.OPEN)
    return any(accept(data[:16]) is True for accept in accepts if accept)


def _upright(image: Image.Image) -> Image.Image:
    """Turn the image as its EXIF orientation says; EXIF that cannot be read says nothing.

    ``ImageOps.exif_transpose`` would also write all of the EXIF anew, which a stranger can
    make a matter of minutes.
    """
    with contextlib.suppress(Exception):
        method = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
        return image if method is None else _transposed(image, method)
    return image


def _transposed(image: Image.Image, method: Image.Transpose) -> Image.Image:
    turned = image.transpose(method)
    turned.info = image.info
    return turned


def _scale_key(image: Image.Image, data: bytes) -> None:
    """A PNG's transparent colour comes in the file's depth, but its pixels in 8 bits."""
    key, depth = image.info.get("transparency"), data[24] if data[12:16] == b"IHDR" else 8
    if image.mode == "RGB" and isinstance(key, tuple) and depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in key)
    if image.mode == "L" and isinstance(key, int) and depth < 8:
        greatest = (1 << depth) - 1
        image.info["transparency"] = (key & greatest) * 255 // greatest


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any of Pillow's modes so that it looks right.

    ``convert("RGB")`` alone clips 16-bit greys to white, and drops transparency, so that what
    was hidden below it shows.
    """
    key = image.info.get("transparency")
    if image.mode == "RGB" and key is None:
        return image
    if image.mode.startswith("I;16"):
        return _from_16_bits(image, key)
    if image.mode in ("I", "F"):
        return _stretched(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return _over_white(rgba, rgba.getchannel("A"))


def _over_white(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The image where the mask is white, and white where it is black."""
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image, mask=mask)
    return canvas


def _from_16_bits(image: Image.Image, transparent: object) -> Image.Image:
    """16-bit grey → RGB: the upper 8 bits of each pixel."""
    values = np.asarray(image)
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:
        values = 65535 - values
    grey = Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    return (
        grey if transparent is None else _over_white(grey, Image.fromarray(values != transparent))
    )


def _stretched(image: Image.Image) -> Image.Image:
    """32-bit integers or floats → mode L.

    Integers from 0 to 65535 are taken as 16-bit, floats up to 1 as 0 to 1 and up to 255 as
    they are; anything else is stretched from its least to its greatest value.
    """
    values = np.array(image, np.float32)
    np.nan_to_num(values, copy=False, posinf=0.0, neginf=0.0)
    least, greatest = float(values.min()), float(values.max())
    if least < 0 or greatest > (65535 if image.mode == "I" else 255):
        values -= least
        values *= 255 / max(greatest - least, 1e-12)
    elif image.mode == "I":
        values /= 257  # 65535 → 255
    elif greatest <= 1:
        values *= 255
    return Image.fromarray(np.rint(values, out=values).astype(np.uint8))
