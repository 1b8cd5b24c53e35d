"""Image → the square of pixels a network was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Beyond this ratio of the sides only the middle is resized: a picture of 1 × 50,000,000
# pixels would otherwise be enlarged to 3 billion on its way to 224 × 224.
RIBBON = 16


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a network wants its images; the values belong to its weights.

    ``mean`` and ``std`` are per RGB channel on the scale 0 to 1. They are applied to the
    whole batch on the device, by :class:`predictor.model.Model`: what travels there is uint8.
    """

    resize: int  # the shorter side, in pixels
    crop: int  # then the middle square, in pixels
    interpolation: Image.Resampling
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize an RGB image and crop its middle: ``(crop, crop, 3)`` uint8.

        The same pixels as torchvision's ``Resize(resize)`` and ``CenterCrop(crop)`` on a PIL image.
        """
        if max(image.size) > RIBBON * min(image.size):
            image = _middle(image, RIBBON * min(image.size))
        width, height = image.size
        shorter = min(width, height)
        size = int(self.resize * width / shorter), int(self.resize * height / shorter)
        image = image.resize(size, self.interpolation)
        left, top = (round((side - self.crop) / 2) for side in size)
        return np.asarray(image.crop((left, top, left + self.crop, top + self.crop)))


def _middle(image: Image.Image, longest: int) -> Image.Image:
    width, height = (min(side, longest) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
