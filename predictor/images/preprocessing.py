"""Upright image → the pixels that a network was trained on, described as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import ceil, floor, isfinite
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from predictor.errors import WrongSize
from predictor.images.colour import to_rgb
from predictor.images.profile import is_srgb, to_srgb, to_srgb_early

# A longer image is cropped to this ratio of long to short side before it is resized. Otherwise an
# image of 1 × 50,000,000 pixels would be enlarged to 255 × 12,750,000,000 pixels.
MAX_ASPECT_RATIO = 16
# A JPEG decoded at a reduced size keeps at least this many times the side that the model needs.
# On 50 photographs enlarged to 12 megapixels, EfficientNet-Lite0 gives the same classes as from
# all pixels, and their probabilities move by 0.007 on average (0.019 with 1 instead of 2).
OVERSAMPLING = 2

Interpolation = Image.Resampling
Resize = int | tuple[int, int] | Literal["squash", "pad", "none"]
Channels = Literal["RGB", "BGR", "L", "RGBA"]
CHANNELS: dict[int, Channels] = {3: "RGB", 1: "L", 4: "RGBA"}  # by number, RGB first
Scale = Literal["0..1", "-1..1", "0..255"]

# What a pixel is divided by, and what is then subtracted.
UNIT_AND_SHIFT: dict[Scale, tuple[float, float]] = {
    "0..1": (255, 0), "-1..1": (127.5, 1), "0..255": (1, 0)
}  # fmt: skip

# From 0 to 255. An image gives uint8; a client's tensor gives float32, which may have fractions.
Pixels = NDArray[np.uint8 | np.float32]


class Box(NamedTuple):
    """A part of an image. Offsets are fractions of the image's width or height.

    Offsets below 0 or above 1 are padding that was added to the image.
    """

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a photo becomes the pixels with which a network was trained, and their normalisation.

    The model normalises the whole batch on the device, so that only uint8 pixels have to be copied
    to the device.

    Attributes:
        size: height and width of what the network takes, in pixels.
        resize: a whole number is the length of the shorter side after resizing; the centre is then
            cut out, and padded with black where it is larger. Height and width are the size after
            resizing, which changes the proportions, before the centre is cut out; ``squash`` means
            ``size`` itself. ``pad`` fits the photo into ``size``, centred on black. ``none``
            accepts only photos that have ``size`` already.
        interpolation: of Pillow, always antialiased.
        mean, std: of each channel, on ``scale``.
        channels: their order. ``RGBA`` has the photo's own alpha, 255 where it is opaque.
        scale: the range of a pixel before ``mean`` is subtracted.
    """

    size: tuple[int, int]
    resize: Resize
    interpolation: Interpolation
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: Channels = "RGB"
    scale: Scale = "0..1"

    def __post_init__(self) -> None:
        """Raise ValueError if mean and std do not fit the channels."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != len(self.channels) or not all(map(isfinite, values)):
                count = f"one finite number for each channel of {self.channels}"
                raise ValueError(f"{name} is {list(values)}; it must be {count}.")
        if min(self.std) <= 0:
            raise ValueError(f"std is {list(self.std)}; its numbers must be above 0.")

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them, in lists and texts."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        lists = {key: list(value) for key, value in values.items() if isinstance(value, tuple)}
        return values | lists | {"interpolation": self.interpolation.name.lower()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Return the preprocessing that :meth:`as_json` describes."""
        read: dict[str, Any] = {
            key: tuple(one) if isinstance(one, list) else one for key, one in values.items()
        }
        return cls(
            **read | {"interpolation": Interpolation.__members__[read["interpolation"].upper()]}
        )

    def describe(self) -> str:
        """Return one line for people: size, rule, channels and normalisation."""
        height, width = self.size
        if isinstance(self.resize, tuple):
            first = f"resized to {self.resize[1]} × {self.resize[0]}"
        else:
            first = f"shorter side resized to {self.resize}"
        how = {
            "squash": "resized to it without keeping the proportions",
            "pad": "resized to fit, padded with black",
            "none": "photos must have this size",
        }.get(str(self.resize), f"{first}, centre cut out")
        by = "" if self.resize == "none" else f" ({self.interpolation.name.lower()})"
        mean, std = (
            ", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std)
        )
        return (
            f"{width} × {height} {self.channels}, {how}{by}; {self.scale}, mean {mean}, std {std}"
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and number of channels."""
        return *self.size, len(self.channels)

    @property
    def shorter_side(self) -> int | None:
        """Length to which the shorter side of a photo may shrink before it is resized.

        None: the photo must keep its size. It is the longer side of a rectangle, because the
        photo's orientation is not known before it is decoded.
        """
        if isinstance(self.resize, int):
            return self.resize
        return None if self.resize == "none" else max(self._resized)

    @property
    def enough_pixels(self) -> int | None:
        """Number of pixels that suffice for a photo's shorter side; None: decode at full size."""
        return None if self.shorter_side is None else OVERSAMPLING * self.shorter_side

    @property
    def _resized(self) -> tuple[int, int]:
        """Height and width to which a photo is resized, if its own size does not matter."""
        return self.resize if isinstance(self.resize, tuple) else self.size

    @property
    def offset(self) -> NDArray[np.float32]:
        """What is subtracted from each channel's pixels, 0 to 255, to normalise them: ``(C,)``."""
        unit, shift = UNIT_AND_SHIFT[self.scale]
        offset: NDArray[np.float32] = (np.array(self.mean, np.float32) + shift) * unit
        return offset

    @property
    def divisor(self) -> NDArray[np.float32]:
        """What the rest is then divided by: ``(C,)``."""
        divisor: NDArray[np.float32] = (
            np.array(self.std, np.float32) * UNIT_AND_SHIFT[self.scale][0]
        )
        return divisor

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize a decoded image, and crop or pad it: ``(height, width, C)`` uint8, sRGB.

        The pixels are the same as from torchvision's ``Resize`` and ``CenterCrop``. A large image
        with a colour profile is converted afterwards, when few pixels are left.

        Raises:
            WrongSize: ``resize`` is ``none``, and the image has another size.
        """
        high, wide = self.size
        if self.resize == "none" and image.size != (wide, high):
            sizes = f"{image.width} × {image.height} pixels; the model takes {wide} × {high}"
            raise WrongSize(f"The image has {sizes} only. Resize it first.")
        centre = self._centre(image.size)
        if centre != (0, 0, *image.size):
            image = image.crop(centre)
        (width, height), left, top = self._geometry(image.size)
        image = to_srgb_early(image, self._used(image.size))
        if self.channels == "L" and is_srgb(image):
            image = image.convert("L")
        image = image.resize((width, height), self.interpolation)
        inside = max(0, left), max(0, top), min(width, left + wide), min(height, top + high)
        image = to_srgb(image.crop(inside))
        if self.channels in ("L", "RGBA"):
            image = image.convert(self.channels)
        if image.size != (wide, high):
            image = image.crop((min(0, left), min(0, top), min(0, left) + wide, min(0, top) + high))
        pixels = np.asarray(image).reshape(self.shape)
        return np.ascontiguousarray(pixels[..., ::-1]) if self.channels == "BGR" else pixels

    def pixels(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Undo the normalisation: ``(N, C, height, width)`` → ``(N, height, width, C)``, 0 to 255.

        This lets the model handle a client's normalised tensor like an image. Undoing and
        repeating the normalisation changes a value by about 1e-6.
        """
        pixels: NDArray[np.float32] = tensor.transpose(0, 2, 3, 1) * self.divisor + self.offset
        return pixels

    def picture(self, pixels: NDArray[np.uint8]) -> Image.Image:
        """Return ``(height, width, C)`` pixels as an RGB image; transparent parts are white."""
        if self.channels == "L":
            pixels = pixels[..., 0]
        if self.channels == "BGR":
            pixels = pixels[..., ::-1]
        return to_rgb(Image.fromarray(np.ascontiguousarray(pixels)))

    def visible_box(self, size: tuple[int, int]) -> Box:
        """Return the part that the model sees of an image with this width and height in pixels."""
        left, top, right, bottom = self._centre(size)
        (width, height), x, y = self._geometry((right - left, bottom - top))
        across, down = right - left, bottom - top
        return Box(  # its offsets are 0 and 1 exactly where nothing is cut or padded
            (left + x / width * across) / size[0],
            (top + y / height * down) / size[1],
            (left + (x + self.size[1]) / width * across) / size[0],
            (top + (y + self.size[0]) / height * down) / size[1],
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
            min(size[0], ceil((left + self.size[1]) * across) + wider),
            min(size[1], ceil((top + self.size[0]) * down) + higher),
        )

    def _geometry(self, size: tuple[int, int]) -> tuple[tuple[int, int], int, int]:
        """Return the width and height after resizing, and then the left and top of the crop.

        They are negative if the image is padded there.
        """
        high, wide = self.size
        if isinstance(self.resize, int):
            width, height = (int(self.resize * side / min(size)) for side in size)
        elif self.resize == "pad":
            scale = max(size[0] / wide, size[1] / high)
            width, height = (max(1, round(side / scale)) for side in size)
        else:
            height, width = self._resized
        return (width, height), _middle(width, wide), _middle(height, high)

    def _centre(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom of the centre, cropped to ``MAX_ASPECT_RATIO``.

        It counts from the proportions of what the network takes, if these are long themselves.
        """
        high, wide = self.size
        if isinstance(self.resize, int):
            ratios = max(1, wide / self.resize), max(1, high / self.resize)
        else:
            high, wide = self._resized
            ratios = max(1, wide / high), max(1, high / wide)
        width = min(size[0], ceil(MAX_ASPECT_RATIO * ratios[0] * size[1]))
        height = min(size[1], ceil(MAX_ASPECT_RATIO * ratios[1] * size[0]))
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        return left, top, left + width, top + height


def _middle(length: int, cut: int) -> int:
    """Return where torchvision's ``CenterCrop`` begins: rounded down in padding, else to even."""
    return round((length - cut) / 2) if length >= cut else -((cut - length) // 2)
