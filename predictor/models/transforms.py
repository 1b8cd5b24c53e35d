"""torchvision's transforms, as a training script has them → a description of the preprocessing.

Steps are known by their class, and read by their attributes: neither torch nor torchvision is
imported here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NoReturn

import numpy as np

from predictor.errors import ModelError
from predictor.images.preprocessing import Channels, Interpolation, Preprocessing, Resize, Scale

ACCEPTED = (
    "Accepted are Grayscale(1), Resize, CenterCrop, ToTensor (or ToImage and"
    " ToDtype(torch.float32, scale=True)) and Normalize, in this order, or the transforms() of"
    " torchvision's weights. Describe any other preprocessing in model.toml, under [input]."
)
CONTAINERS = {"torchvision": ("Compose",), "torch": ("Sequential",)}
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
    reader = _Reader(name)
    for step in _steps(transform):
        reader.read(step)
    return reader.finish()


def _kind(step: Any) -> tuple[str, str]:
    """Return the package and the name of a step's class: other packages have a Resize, too."""
    return type(step).__module__.partition(".")[0], type(step).__name__


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


@dataclass
class _Reader:
    """What the steps so far have described."""

    name: str
    step: str = ""
    size: tuple[int, int] | None = None
    resize: int | tuple[int, int] | None = None
    interpolation: Interpolation = Interpolation.BILINEAR
    channels: Channels = "RGB"
    scale: Scale = "0..1"
    values: Literal["Pillow", "uint8", "float32"] = "Pillow"  # what the next step gets
    mean_and_std: tuple[Any, Any] | None = None

    def read(self, step: Any) -> None:
        """Add a step, or raise ModelError."""
        package, name = _kind(step)
        self.step = " ".join(repr(step).split())
        known = package == "torchvision" or (package, name) == ("timm", "MaybeToTensor")
        if not known or name not in self.READERS:
            random = " It is random: give the steps of the validation." if "Random" in name else ""
            self.refuse("cannot be read." + random)
        if self.mean_and_std:
            self.refuse("follows Normalize.")
        self.READERS[name](self, step)

    def finish(self) -> Preprocessing:
        """Return the description. Raise ModelError if steps are missing."""
        if self.resize is None:
            self.fail("has no Resize, so the model's input has no size.")
        size = self.size or self.resize
        if not isinstance(size, tuple):
            self.fail(f"has Resize({size}) without CenterCrop, so each photo has another size.")
        if self.values != "float32":
            self.fail("has no ToTensor, or no ToDtype(torch.float32).")
        resize: Resize = "squash" if self.resize == size else self.resize
        count = len(self.channels)
        mean, std = (_floats(values, count) for values in self.mean_and_std or (0.0, 1.0))
        try:
            return Preprocessing(
                size, resize, self.interpolation, mean, std, self.channels, self.scale
            )
        except ValueError as error:
            self.fail(f"cannot be used: {error}")

    def refuse(self, reason: str) -> NoReturn:
        self.fail(f"has the step {self.step}, which {reason}")

    def fail(self, reason: str) -> NoReturn:
        raise ModelError(f"{self.name} {reason} {ACCEPTED}")

    def read_grayscale(self, step: Any) -> None:
        if step.num_output_channels != 1:
            self.refuse("has 3 channels of grey; the model must take one.")
        if self.resize is not None or self.values != "Pillow":
            self.refuse("must be the first step: afterwards it gives other values.")
        self.channels = "L"

    def read_resize(self, step: Any) -> None:
        if self.resize is not None or self.values == "float32":
            self.refuse("must be before ToTensor, once.")
        if step.max_size is not None:
            self.refuse("has max_size, which is not supported.")
        self.interpolation = _interpolation(step.interpolation)
        if self.values == "uint8" and not (
            step.antialias and self.interpolation in TENSOR_INTERPOLATIONS
        ):
            self.refuse("is not antialiased, or not bilinear or bicubic. Put it before ToImage.")
        sides = [step.size] if isinstance(step.size, int) else [*step.size]
        self.resize = sides[0] if len(sides) == 1 else (sides[0], sides[1])

    def read_center_crop(self, step: Any) -> None:
        if self.resize is None or self.size is not None:
            self.refuse("must follow Resize, once.")
        self.size = tuple(step.size)

    def read_to_tensor(self, _step: Any) -> None:
        if self.values == "uint8":
            self.refuse("must not follow ToImage.")
        self.values = "float32"

    def read_to_image(self, _step: Any) -> None:
        if self.values == "Pillow":
            self.values = "uint8"

    def read_to_dtype(self, step: Any) -> None:
        dtype = str(step.dtype)
        if dtype == f"torch.{self.values}":  # it changes nothing
            return
        if dtype != "torch.float32" or self.values != "uint8":
            self.refuse("must follow ToImage and convert to torch.float32.")
        self.values = "float32"
        self.scale = "0..1" if getattr(step, "scale", True) else "0..255"

    def read_normalize(self, step: Any) -> None:
        if self.values != "float32":
            self.refuse("must follow ToTensor, or ToDtype(torch.float32, scale=True).")
        self.mean_and_std = step.mean, step.std

    READERS: ClassVar[dict[str, Callable[["_Reader", Any], None]]] = {
        "Grayscale": read_grayscale,
        "Resize": read_resize,
        "CenterCrop": read_center_crop,
        "ToTensor": read_to_tensor,
        "MaybeToTensor": read_to_tensor,
        "ToImage": read_to_image,
        "PILToTensor": read_to_image,
        "ToDtype": read_to_dtype,
        "ConvertImageDtype": read_to_dtype,
        "Normalize": read_normalize,
    }
