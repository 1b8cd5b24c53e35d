"""The description of a model: what it takes, what it answers, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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

    def as_json(self) -> dict[str, Any]:
        """Return the form that model files carry; ``description.describe`` reads it."""
        return {
            "name": self.name,
            "version": self.version,
            "source": self.source,
            "labels": {str(index): list(label) for index, label in enumerate(self.labels)},
            "input": self.input.as_json(),
            "output": self.output.as_json(),
        }
