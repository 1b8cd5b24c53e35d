"""Networks of an operator's own, loaded as a source loads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from predictor.images.preprocessing import Preprocessing
from predictor.models import loading
from predictor.models.description import Description, describe
from predictor.models.labels import Label
from predictor.models.network import Model
from predictor.models.reference import Reference
from predictor.models.scorer import Loaded, LoadedModel
from predictor.models.sources import Request
from predictor.settings import Settings

INPUT = {"size": 8, "resize": 9, "mean": [0.0], "std": [1.0], "channels": "RGB"}


class Colours(nn.Module):
    """A convolution that keeps red, green and blue apart, and its mean times 8, minus 2: logits."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 1, bias=False)
        self.convolution.weight.data = torch.eye(3)[:, :, None, None]
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Any:
        """``(N, 3, H, W)``, 0 to 1, to ``(N, 3)``: -2 to 6."""
        return 8 * self.convolution(images).mean((2, 3)) - 2


class Red(Colours):
    """One logit: whether the photo is red."""

    def forward(self, images: Tensor) -> Any:
        return super().forward(images)[:, :1]


class IsRed(Red):
    """The same as a probability."""

    def forward(self, images: Tensor) -> Any:
        return super().forward(images).sigmoid()


class BrightBranch(Colours):
    """Answers as if bright photos had red and blue exchanged: an ``if`` on the whole batch."""

    def forward(self, images: Tensor) -> Any:
        logits = super().forward(images)
        return logits.flip(1) if images.mean() > 0.45 else logits


@dataclass
class Found:
    """A network in memory."""

    network: nn.Module
    said: Description
    name: str = "net"

    def load(self, input: Preprocessing, classes: int | None) -> Loaded:
        scorer = Model(self.network.eval(), input, threads=1, lanes=1, max_batch_size=4)
        return Loaded(scorer, "net.pth", "cpu", "float32", threads=1, parameters=9)


def serve(
    network: nn.Module, labels: tuple[Label, ...] | None = None, **content: Any
) -> LoadedModel:
    """Load a network; ``content`` is as in ``model.toml``."""
    said = describe({"input": INPUT} | content, "model.toml")
    if labels is not None:
        said |= describe({"labels": [label.class_name for label in labels]}, "model.toml")
    asked = Request("net", said, labels, Settings(), 1)
    return loading.load(Found(network, {}), asked, Reference("code", "net.py:Net"))
