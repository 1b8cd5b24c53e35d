"""An explanation → a picture: the photo, hot where it speaks for the class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from predictor.engine.explainer import Explanation

# Matplotlib's inferno at 0, 1/4 … 1: lightness grows with the heat, for the colour-blind too.
# The page's script has the same ones.
COLOURS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
OPACITY = 0.75  # where it is hottest; where it is cold the photo shows as it is
UNSEEN = 0.35  # brightness of what the model does not look at


def paint(explanation: Explanation) -> Image.Image:
    """Lay the heat over the photo, and dim what the model has not seen: RGB, of its size."""
    photo = explanation.photo
    width, height = photo.size
    box = explanation.box
    left, top, right, bottom = (
        round(side * length) for side, length in zip(box, (width, height) * 2, strict=True)
    )
    size = max(1, right - left), max(1, bottom - top)  # a ribbon is a line when it is that small
    heat = Image.fromarray(explanation.heat).resize(size, Image.Resampling.BICUBIC)
    colours, opacity = _colour(np.asarray(heat))
    seen = photo.crop((left, top, left + size[0], top + size[1]))
    seen.paste(colours, mask=opacity)
    picture = ImageEnhance.Brightness(photo).enhance(UNSEEN)
    picture.paste(seen, (left, top))
    return picture


def _colour(heat: NDArray[np.float32]) -> tuple[Image.Image, Image.Image]:
    """Colours, RGB, and how much they cover, L, of ``(h, w)`` heat from about 0 to 1."""
    levels = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(heat, levels, channel) for channel in zip(*COLOURS, strict=True)]
    opacity = heat.clip(0, 1) * 255 * OPACITY
    return (
        Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)),
        Image.fromarray(opacity.astype(np.uint8)),
    )
