"""Pillow's many colour modes → RGB."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PHOTOMETRIC_TAG, WHITE_IS_ZERO = 262, 0


def to_rgb(image: Image.Image, alpha: bool = False) -> Image.Image:
    """Convert an image of any mode to RGB. Transparent parts become white.

    ``convert("RGB")`` alone would clip 16-bit grey to white. It would also drop transparency, and
    so show hidden colours. With ``alpha``, an image that has transparency becomes RGBA.
    """
    converted = _convert(image)
    return converted if alpha or converted.mode == "RGB" else _over_white(converted)


def _convert(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGBA if it has transparency, else to RGB."""
    key = image.info.get("transparency")
    if image.mode == "RGB" and key is None:
        return image
    if image.mode.startswith("I;16"):
        return _from_16_bits(image, key)
    if image.mode in ("I", "F"):
        grey = to_8_bits(np.array(image, np.float32), image.mode == "F")
        return Image.fromarray(grey).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    return image.convert("RGBA")


def _over_white(image: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image, mask=image)  # getchannel("A") would stop all other threads
    return canvas


def _from_16_bits(image: Image.Image, transparent: object) -> Image.Image:
    """Convert 16-bit grey to RGB or RGBA. Keep the upper 8 bits of each pixel."""
    values = np.asarray(image)
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC_TAG) == WHITE_IS_ZERO:
        values = 65535 - values
    grey = Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if transparent is not None:
        grey.putalpha(Image.fromarray(values != transparent))
    return grey


def to_8_bits(values: NDArray[np.float32], is_float: bool) -> NDArray[np.uint8]:
    """Convert wide integers or floats, of any shape, to 8 bits. The values are changed.

    Integers from 0 to 65535 are read as 16 bits, floats from 0 to 1 as fractions of white and
    floats from 0 to 255 as 8 bits. Any other range is stretched to black … white.
    """
    np.nan_to_num(values, copy=False, posinf=0.0, neginf=0.0)
    least, greatest = float(values.min()), float(values.max())
    if least < 0 or greatest > (255 if is_float else 65535):
        values -= least
        values *= 255 / max(greatest - least, 1e-12)
    elif not is_float:
        values /= 257  # 65535 → 255
    elif greatest <= 1:
        values *= 255
    return np.rint(values, out=values).astype(np.uint8)
