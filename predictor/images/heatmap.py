"""Photo and heat map → a picture that shows where the evidence for a class lies."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from predictor.images.colour import to_rgb
from predictor.images.preprocessing import Box
from predictor.images.profile import to_srgb

MAX_PHOTO_SIDE = 1024  # pixels; the page shows a photo no larger

# Matplotlib's colour map inferno at 0, 1/4, … 1. The lightness grows with the heat, so that
# colour-blind people can read the picture. The page's script has the same colours.
COLOURS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
LEVELS = np.arange(256)  # of heat
PALETTE = [np.interp(LEVELS, np.linspace(0, 255, 5), channel) for channel in np.transpose(COLOURS)]
OPACITY = 0.75  # of the colour where the heat is 1; 0 where the heat is 0
UNSEEN = 0.35  # brightness of the parts that the model does not see


def shrink(photo: Image.Image) -> Image.Image:
    """Return a decoded photo in sRGB, at most ``MAX_PHOTO_SIDE`` pixels wide and high."""
    # First by a whole factor: 12 megapixels in 0.05 s instead of 0.11.
    photo.thumbnail((MAX_PHOTO_SIDE, MAX_PHOTO_SIDE), reducing_gap=1.0)
    return to_rgb(to_srgb(photo))


def paint(photo: Image.Image, heat: NDArray[np.float32], box: Box) -> Image.Image:
    """Return a copy of an RGB photo with the heat over it and the unseen parts dimmed.

    ``heat`` is ``(h, w)``, from 0 to 1. It covers the box, the part that the model saw, of which
    only what lies in the photo is painted.
    """
    inside = Box(*(min(1.0, max(0.0, side)) for side in box))
    corners = zip(inside, photo.size * 2, strict=True)
    left, top, right, bottom = (round(side * length) for side, length in corners)
    size = max(1, right - left), max(1, bottom - top)  # a thin box may round to 0
    resized = Image.fromarray(heat).resize(
        size, Image.Resampling.BICUBIC, _cells(heat.shape, box, inside)
    )
    colours, opacity = _colour(np.asarray(resized))
    seen = photo.crop((left, top, left + size[0], top + size[1]))
    seen.paste(colours, mask=opacity)
    picture = ImageEnhance.Brightness(photo).enhance(UNSEEN)
    picture.paste(seen, (left, top))
    return picture


def _cells(shape: tuple[int, ...], box: Box, part: Box) -> Box:
    """Return where a part of the box is in a heat map of this shape, in cells."""
    starts, lengths = box[:2] * 2, (box.right - box.left, box.bottom - box.top) * 2
    cells = zip(part, starts, lengths, shape[::-1] * 2, strict=True)
    return Box(*((side - start) / length * count for side, start, length, count in cells))


def _colour(heat: NDArray[np.float32]) -> tuple[Image.Image, Image.Image]:
    """Convert ``(h, w)`` heat from about 0 to 1 to colours (RGB) and their opacity (L)."""
    levels = Image.fromarray(np.rint(heat.clip(0, 1) * 255).astype(np.uint8))
    opacity = levels.point([int(level * OPACITY) for level in LEVELS])
    levels.putpalette(np.stack(PALETTE, axis=-1).astype(np.uint8).tobytes())
    return levels.convert("RGB"), opacity
