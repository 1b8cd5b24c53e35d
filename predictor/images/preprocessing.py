"""Image → the square of pixels a network was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Beyond this ratio of the sides only the middle is resized: a picture of 1 × 50,000,000
# pixels would otherwise be enlarged to 3 billion on its way to 224 × 224.
RIBBON = 16

# From 0 to 255; float32 where a caller has prepared them, and then not always whole.
Pixels = NDArray[np.uint8 | np.float32]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a network wants its images; the values belong to its weights.

    ``mean`` and ``std`` are per RGB channel on the scale 0 to 1. They are applied to the
    whole batch on the device, by the model: what travels there is uint8.
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
        middle = _middle(image.size)
        if middle != (0, 0, *image.size):
            image = image.crop(middle)
        size, left, top = self._geometry(image.size)
        image = image.resize(size, self.interpolation)
        return np.asarray(image.crop((left, top, left + self.crop, top + self.crop)))

    def pixels(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Undo the normalisation: ``(N, 3, crop, crop)`` → ``(N, crop, crop, 3)`` from 0 to 255.

        So a tensor that a caller has normalised goes the way of a photo. What the two roundings
        cost is about 1e-6 of a normalised value.
        """
        mean, std = (np.array(values, np.float32) for values in (self.mean, self.std))
        pixels: NDArray[np.float32] = (tensor.transpose(0, 2, 3, 1) * std + mean) * np.float32(255)
        return pixels

    def seen(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """The part of an image that is left of it: left, top, right, bottom.

        Args:
            size: the image's width and height in pixels; the part's sides are in the same
                pixels, and not whole.
        """
        left, top, right, bottom = _middle(size)
        (width, height), x, y = self._geometry((right - left, bottom - top))
        across, down = (right - left) / width, (bottom - top) / height
        return (
            left + x * across,
            top + y * down,
            left + (x + self.crop) * across,
            top + (y + self.crop) * down,
        )

    def _geometry(self, size: tuple[int, int]) -> tuple[tuple[int, int], int, int]:
        """To which width and height an image is resized, and where the crop begins in that."""
        width, height = size
        shorter = min(size)
        resized = int(self.resize * width / shorter), int(self.resize * height / shorter)
        left, top = (round((side - self.crop) / 2) for side in resized)
        return resized, left, top


def _middle(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The part of an image that is looked at at all: left, top, right, bottom."""
    longest = RIBBON * min(size)
    width, height = (min(side, longest) for side in size)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height
