"""The description of a model: what it takes, what it answers, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from predictor.models.labels import Label
from predictor.models.outputs import Output

if TYPE_CHECKING:
    from predictor.images.preprocessing import Preprocessing


@dataclass(frozen=True, slots=True)
class Card:
    """A model's description. Nothing outside ``models/`` needs to know where a model came from."""

    name: str  # for URLs
    source: str  # in the grammar of PREDICTOR_MODEL, such as ``torchvision:resnet18``
    input: Preprocessing
    labels: tuple[Label, ...]
    output: Output = field(default_factory=Output)
    version: str = "1"
