"""A small network, its own pipeline, and its files as TorchScript and torch.export."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

from photographs import answers, prepared, spread
from predictor.models.loading import load_model
from predictor.models.scorer import LoadedModel
from predictor.settings import Settings

CLASSES = 20
NAMES = [f"class {index}" for index in range(CLASSES)]  # without labels
INPUT = {
    "size": [64, 64], "resize": 72, "interpolation": "bilinear",
    "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4],
}  # fmt: skip
SETTINGS = {"input_size": "64", "resize": "72", "mean": "0.4,0.5,0.6", "std": "0.2,0.3,0.4"}
PIPELINE = Compose([Resize(72), CenterCrop(64), ToTensor(), Normalize(INPUT["mean"], INPUT["std"])])


class Small(nn.Module):
    """Two convolutions, a batch norm and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Conv2d(8, 64, 3, 2)
        self.last = nn.Linear(256, CLASSES)

    def features(self, images: Tensor) -> Tensor:
        maps = self.second(self.first(images)).relu()
        return nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.features(images))


class Views(Small):
    """Fails with images that are channels last in memory."""

    def features(self, images: Tensor) -> Tensor:
        maps = nn.functional.adaptive_avg_pool2d(self.second(self.first(images)).relu(), 2)
        return maps.view(maps.size(0), -1)


def ready(kind: type[nn.Module] = Small, *arguments: Any) -> nn.Module:
    """A network in eval mode whose answers to the photographs differ."""
    torch.manual_seed(0)
    network = kind(*arguments).eval()
    with deprecated():
        spread(network, prepared(PIPELINE))
    return network


def own_answers(network: nn.Module) -> Any:
    """The logits of the photographs, by the network's own pipeline."""
    with deprecated():
        return answers(network, prepared(PIPELINE))


@contextmanager
def deprecated() -> Iterator[None]:
    """torch.jit may be used in here: it warns that torch.export replaces it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        yield


def save_script(path: Path, program: Any, **card: Any) -> str:
    """Save a TorchScript program; ``card`` is what it says of itself."""
    with deprecated():
        torch.jit.save(program, path, _extra_files=_extra(card))
    return str(path)


def traced(network: nn.Module, count: int = 1, **options: Any) -> Any:
    with deprecated():
        return torch.jit.trace(network, torch.rand(count, 3, 64, 64), **options)


def scripted(network: nn.Module) -> Any:
    with deprecated():
        return torch.jit.script(network)


def save_exported(
    path: Path, network: nn.Module, count: int = 2, fixed: bool = False,
    dtype: torch.dtype = torch.float32, **card: Any,
) -> str:  # fmt: skip
    """Save a program of torch.export for ``count`` images, or for any number of them."""
    images = torch.rand(count, 3, 64, 64, dtype=dtype)
    dynamic = None if fixed else ({0: torch.export.Dim("batch")},)
    program = torch.export.export(network, (images,), dynamic_shapes=dynamic)
    torch.export.save(program, path, extra_files=_extra(card))
    return str(path)


def _extra(card: dict[str, Any]) -> dict[str, str]:
    return {"predictor.json": json.dumps(card)} if card else {}


def load(path: str, **settings: Any) -> LoadedModel:
    """Load a file with the settings of :data:`PIPELINE`."""
    return load_model(Settings(model=path, **SETTINGS | settings), 2)
