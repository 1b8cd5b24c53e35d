"""RGB image → the square of pixels that a network was trained on."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# A longer image is cropped to this ratio of its sides before it is resized. Otherwise an image of
# 1 × 50,000,000 pixels would be enlarged to 255 × 12,750,000,000 first.
MAX_ASPECT_RATIO = 16

Interpolation = Image.Resampling

# From 0 to 255: uint8 from an image, or float32, not always whole, from a client's tensor.
Pixels = NDArray[np.uint8 | np.float32]


class Box(NamedTuple):
    """A part of an image; each side from 0 to 1 of the image's width or height."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The size, crop and normalisation with which a network's weights were trained.

    ``mean`` and ``std`` are per RGB channel, on the scale 0 to 1. The model applies them to the
    whole batch on the device, so that only uint8 has to be copied there.
    """

    resize: int  # length of the shorter side after resizing, in pixels
    crop: int  # side of the square that is then cut from the centre, in pixels
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize an RGB image and crop its centre: ``(crop, crop, 3)`` uint8.

        These are the same pixels as from torchvision's ``Resize`` and ``CenterCrop``.
        """
        centre = _centre(image.size)
        if centre != (0, 0, *image.size):
            image = image.crop(centre)
        size, left, top = self._geometry(image.size)
        image = image.resize(size, self.interpolation)
        return np.asarray(image.crop((left, top, left + self.crop, top + self.crop)))

    def pixels(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Undo the normalisation: ``(N, 3, crop, crop)`` → ``(N, crop, crop, 3)`` from 0 to 255.

        A tensor that a caller has normalised can then be handled like an image. Undoing and
        repeating the normalisation changes a value by about 1e-6.
        """
        mean, std = np.array([self.mean, self.std], np.float32)
        pixels: NDArray[np.float32] = (tensor.transpose(0, 2, 3, 1) * std + mean) * np.float32(255)
        return pixels

    def visible_box(self, size: tuple[int, int]) -> Box:
        """Return the part of an image that the model sees, given its width and height in pixels."""
        left, top, right, bottom = _centre(size)
        (width, height), x, y = self._geometry((right - left, bottom - top))
        across, down = (right - left) / width, (bottom - top) / height
        return Box(
            (left + x * across) / size[0],
            (top + y * down) / size[1],
            (left + (x + self.crop) * across) / size[0],
            (top + (y + self.crop) * down) / size[1],
        )

    def _geometry(self, size: tuple[int, int]) -> tuple[tuple[int, int], int, int]:
        """Return the resized width and height, and the left and top of the crop in that."""
        width, height = (int(self.resize * side / min(size)) for side in size)
        return (width, height), round((width - self.crop) / 2), round((height - self.crop) / 2)


def _centre(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the centre, at most ``MAX_ASPECT_RATIO`` long."""
    longest = MAX_ASPECT_RATIO * min(size)
    width, height = (min(side, longest) for side in size)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height
