"""Bytes → upright RGB image: the one step that meets hostile input."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from predictor.errors import BadRequest, DamagedImage, TooLarge, UnsupportedImage

# By content, never by name. Left out on purpose: what Pillow hands to another program (EPS)
# or what only a specialist sends; each format is one more parser for an attacker to try.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """Decode an image's first frame as a person would see it: upright, RGB, alpha over white.

    Args:
        data: a whole file in one of :data:`FORMATS`.
        max_pixels: checked against the header, before a pixel is decoded.

    Raises:
        BadRequest: there are no bytes.
        UnsupportedImage: not one of the formats.
        TooLarge: more than ``max_pixels``.
        DamagedImage: anything else that Pillow stumbles over.
    """
    if not data:
        raise BadRequest("The image is empty: it has 0 bytes.")
    # Pillow's parsers raise whatever their author met (OSError, SyntaxError, struct.error,
    # zlib.error, KeyError …), so everything they raise on a stranger's bytes means one thing.
    try:
        with _open(data, max_pixels) as image:
            image.load()
            _turn_upright(image)
            return to_rgb(image)
    except (UnsupportedImage, TooLarge):
        raise
    except Exception as error:
        raise DamagedImage(
            "The image is damaged or was cut off: it begins like one and cannot be decoded."
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
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        image = _to_grey(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=rgba.getchannel("A"))
    return white


def _to_grey(image: Image.Image) -> Image.Image:
    """Integers and floats of more than 8 bits → mode L.

    Integers up to 65535 are taken as 16-bit, floats up to 1 as 0 to 1 and up to 255 as they
    are; anything else is stretched from its least to its greatest value.
    """
    values = np.nan_to_num(np.asarray(image, np.float64), posinf=0.0, neginf=0.0)
    least, greatest = float(values.min()), float(values.max())
    if least < 0 or greatest > 65535 or (image.mode == "F" and greatest > 255):
        values = (values - least) * (255 / max(greatest - least, 1e-12))
    elif image.mode != "F":
        values = values / 257  # 65535 → 255
    elif greatest <= 1:
        values = values * 255
    return Image.fromarray(np.rint(values).astype(np.uint8))
