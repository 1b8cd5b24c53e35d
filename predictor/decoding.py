"""Bytes → upright RGB image: the one step that meets hostile input."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from predictor.errors import BadRequest, DamagedImage, Overloaded, TooLarge, UnsupportedImage

# By content, never by name. Left out on purpose: what Pillow hands to another program (EPS)
# or what only a specialist sends; each format is one more parser for an attacker to try.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")

# libjpeg's own progressive script has 10 scans; a marker's bytes do not occur within pixel data.
MAX_SCANS, START_OF_SCAN = 100, b"\xff\xda"


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
        TooLarge: more than ``max_pixels``, or more scans than a photo has.
        DamagedImage: anything else that Pillow stumbles over.
        Overloaded: no memory.
    """
    if not data:
        raise BadRequest("The image is empty: it has 0 bytes.")
    # Pillow's parsers raise whatever their author met (OSError, SyntaxError, struct.error,
    # zlib.error, KeyError …), so everything they raise on a stranger's bytes means one thing.
    try:
        with _open(data, max_pixels) as image:
            _check_scans(image, data)
            if enough is not None:
                image.draft(None, (enough, enough))
            image.load()
            _turn_upright(image)
            return to_rgb(image)
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
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
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
    return image


def _check_scans(image: Image.Image, data: bytes) -> None:
    """A progressive JPEG may go over all its pixels again with every few bytes it spends."""
    if image.format in ("JPEG", "MPO") and data.count(START_OF_SCAN) > MAX_SCANS:
        raise TooLarge(f"The JPEG has more than {MAX_SCANS} scans; save it anew.")


def begins_like_an_image(data: bytes) -> bool:
    """Whether the first bytes are one of the formats' signature, as Pillow tests it."""
    Image.init()
    accepts = (Image.OPEN[name][1] for name in FORMATS if name in Image.OPEN)
    return any(accept(data[:16]) is True for accept in accepts if accept)


def _turn_upright(image: Image.Image) -> None:
    """Turn the image as its EXIF orientation says; EXIF that cannot be read says nothing."""
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


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
    if isinstance(key, tuple) and max(key) > 255:  # a 16-bit PNG's, decoded to 8
        image.info["transparency"] = tuple(value >> 8 for value in key)
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
