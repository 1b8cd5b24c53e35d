"""torchvision's transforms, as a training script has them → a description of the preprocessing.

Steps are known by their class, and read by their attributes: neither torch nor torchvision is
imported here.
"""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from predictor.errors import ModelError
from predictor.images.preprocessing import Channels, Interpolation, Preprocessing, Resize, Scale

ACCEPTED = (
    "Accepted are Grayscale(1), Resize, CenterCrop, ToTensor (or ToImage and"
    " ToDtype(torch.float32, scale=True)) and Normalize, in this order, or the transforms() of"
    " torchvision's weights. Describe any other preprocessing in model.toml, under [input]."
)
CONTAINERS = {"torchvision": ("Compose",), "torch": ("Sequential",)}
LETTERS = {
    "Grayscale": "G", "Resize": "R", "CenterCrop": "C", "ToTensor": "T", "MaybeToTensor": "T",
    "ToImage": "I", "PILToTensor": "I", "ToDtype": "D", "ConvertImageDtype": "D", "Normalize": "N",
}  # fmt: skip
# The order of the steps by their letters. U is a ToDtype(torch.uint8).
ORDER = re.compile("G?(RT|RIU*D|IU*RU*D)D*N?")  # without CenterCrop
CROP = re.compile("[^C]*(R[^CN]*C[^C]*)?")
# Resized as a tensor of uint8, an image differs from Pillow's by rounding: on photographs, mostly
# one to six of 1,000 values by 1, but every sixth value where the scale is a fraction such as 3/5.
TENSOR_INTERPOLATIONS = (Interpolation.BILINEAR, Interpolation.BICUBIC)


def read_transform(transform: Any, name: str = "transform") -> Preprocessing:
    """Read a Compose, or the preset of published weights. ``name`` is for the errors.

    Raises:
        ModelError: a step is unknown or random, or the steps are in another order. The message
            names the step and says what is accepted.
    """
    if _kind(transform) == ("torchvision", "ImageClassification"):
        return Preprocessing(
            size=(transform.crop_size[0],) * 2,
            resize=transform.resize_size[0],
            interpolation=_interpolation(transform.interpolation),
            mean=tuple(transform.mean),
            std=tuple(transform.std),
        )
    try:
        return _read([*_steps(transform)])
    except ValueError as error:
        raise ModelError(f"{name} {error} {ACCEPTED}") from None


def _read(steps: list[Any]) -> Preprocessing:
    """Describe the steps. Raise ValueError with the end of a sentence."""
    letters = [_letter(step) for step in steps]
    if "" in letters:
        step = _text(steps[letters.index("")])
        random = " It is random: give the steps of the validation." if "Random" in step else ""
        raise ValueError(f"has the step {step}, which cannot be read.{random}")
    order = "".join(letters)
    if not ORDER.fullmatch(order.replace("C", "", 1)) or not CROP.fullmatch(order):
        raise ValueError(f"has the steps {', '.join(map(_text, steps))}, which do not fit.")
    first = dict(zip(reversed(letters), reversed(steps), strict=True))
    resized, interpolation = first["R"], _interpolation(first["R"].interpolation)
    like_pillow = resized.antialias and interpolation in TENSOR_INTERPOLATIONS
    if order.startswith("I") and not like_pillow:
        raise ValueError(
            f"has the step {_text(resized)}, which is not antialiased, or not bilinear or bicubic."
            " Put it before ToImage."
        )
    sides = tuple(np.ravel(resized.size).tolist())
    size = tuple(first["C"].size) if "C" in first else sides
    if len(size) == 1:
        raise ValueError(f"has {_text(resized)} without CenterCrop: each photo has another size.")
    resize: Resize = "squash" if sides == size else sides if len(sides) == 2 else sides[0]
    channels: Channels = "L" if "G" in first else "RGB"
    given = (first["N"].mean, first["N"].std) if "N" in first else (0.0, 1.0)
    mean, std = (_floats(values, len(channels)) for values in given)
    scaled = "I" not in first or getattr(first["D"], "scale", True)
    scale: Scale = "0..1" if scaled else "0..255"
    return Preprocessing(size, resize, interpolation, mean, std, channels, scale)


def _kind(step: Any) -> tuple[str, str]:
    """Return the package and the name of a step's class: other packages have a Resize, too."""
    return type(step).__module__.partition(".")[0], type(step).__name__


def _letter(step: Any) -> str:
    """Return a step's letter; empty if it cannot be described."""
    package, name = _kind(step)
    letter = LETTERS.get(name, "")
    if package != "torchvision" and (package, name) != ("timm", "MaybeToTensor"):
        return ""
    if letter == "D":
        return {"torch.float32": "D", "torch.uint8": "U"}.get(str(step.dtype), "")
    three = letter == "G" and step.num_output_channels != 1
    longest = letter == "R" and step.max_size is not None
    return "" if three or longest else letter


def _text(step: Any) -> str:
    return " ".join(repr(step).split())


def _steps(transform: Any) -> Iterator[Any]:
    package, name = _kind(transform)
    if name not in CONTAINERS.get(package, ()):
        yield transform
        return
    for step in getattr(transform, "transforms", transform):
        yield from _steps(step)


def _interpolation(mode: Any) -> Interpolation:
    """Return Pillow's filter for an ``InterpolationMode``, its value, or Pillow's own number."""
    value = getattr(mode, "value", mode)
    if isinstance(value, int):
        return Interpolation(value)
    return Interpolation.__members__[value.removesuffix("-exact").upper()]


def _floats(values: Any, count: int) -> tuple[float, ...]:
    """Return a number, a list or a tensor as floats. One number is repeated, as torch does."""
    floats = tuple(np.ravel(values).tolist())
    return floats * count if len(floats) == 1 else floats
