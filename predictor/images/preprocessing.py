"""RGB image → the square of pixels that a network was trained on."""

from dataclasses import dataclass
from math import ceil, floor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from predictor.images.profile import to_srgb, to_srgb_early

# A longer image is cropped to this ratio of long to short side before it is resized. Otherwise an
# image of 1 × 50,000,000 pixels would be enlarged to 255 × 12,750,000,000 pixels.
MAX_ASPECT_RATIO = 16

Interpolation = Image.Resampling

# From 0 to 255. An image gives uint8; a client's tensor gives float32, which may have fractions.
Pixels = NDArray[np.uint8 | np.float32]


class Box(NamedTuple):
    """A part of an image. Offsets are fractions of the image's width or height, from 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The size, crop and normalisation with which a network's weights were trained.

    ``mean`` and ``std`` are per RGB channel, on the scale 0 to 1. The model applies them to the
    whole batch on the device, so that only uint8 pixels have to be copied to the device.
    """

    resize: int  # length of the shorter side after resizing, in pixels
    crop: int  # side of the square that is then cut from the centre, in pixels
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize a decoded image and crop its centre: ``(crop, crop, 3)`` uint8, sRGB.

        The pixels are the same as from torchvision's ``Resize`` and ``CenterCrop``. A large image
        with a colour profile is converted afterwards, when few pixels are left.
        """
        centre = _centre(image.size)
        if centre != (0, 0, *image.size):
            image = image.crop(centre)
        size, left, top = self._geometry(image.size)
        image = to_srgb_early(image, self._used(image.size))
        image = image.resize(size, self.interpolation)
        square = image.crop((left, top, left + self.crop, top + self.crop))
        return np.asarray(to_srgb(square))

    def pixels(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Undo the normalisation: ``(N, 3, crop, crop)`` → ``(N, crop, crop, 3)`` from 0 to 255.

        This lets the model handle a client's normalised tensor like an image. Undoing and
        repeating the normalisation changes a value by about 1e-6.
        """
        mean, std = np.array([self.mean, self.std], np.float32)
        pixels: NDArray[np.float32] = (tensor.transpose(0, 2, 3, 1) * std + mean) * np.float32(255)
        return pixels

    def visible_box(self, size: tuple[int, int]) -> Box:
        """Return the part that the model sees of an image with this width and height in pixels."""
        left, top, right, bottom = _centre(size)
        (width, height), x, y = self._geometry((right - left, bottom - top))
        across, down = (right - left) / width, (bottom - top) / height
        return Box(
            (left + x * across) / size[0],
            (top + y * down) / size[1],
            (left + (x + self.crop) * across) / size[0],
            (top + (y + self.crop) * down) / size[1],
        )

    def _used(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom of the pixels that a resized image's crop is made of.

        The interpolation uses at most two pixels on each side, scaled if the image is reduced.
        """
        (width, height), left, top = self._geometry(size)
        across, down = size[0] / width, size[1] / height
        wider, higher = (1 + 2 * ceil(max(1, scale)) for scale in (across, down))
        return (
            max(0, floor(left * across) - wider),
            max(0, floor(top * down) - higher),
            min(size[0], ceil((left + self.crop) * across) + wider),
            min(size[1], ceil((top + self.crop) * down) + higher),
        )

    def _geometry(self, size: tuple[int, int]) -> tuple[tuple[int, int], int, int]:
        """Return the width and height after resizing, and then the left and top of the crop."""
        width, height = (int(self.resize * side / min(size)) for side in size)
        return (width, height), round((width - self.crop) / 2), round((height - self.crop) / 2)


def _centre(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the centre, cropped to ``MAX_ASPECT_RATIO``."""
    longest = MAX_ASPECT_RATIO * min(size)
    width, height = (min(side, longest) for side in size)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height
