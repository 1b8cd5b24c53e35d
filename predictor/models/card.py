"""The description of a model: what it takes, what it answers, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from predictor.images.preprocessing import Preprocessing
from predictor.models.labels import Label
from predictor.models.outputs import Output


@dataclass(frozen=True, slots=True)
class Card:
    """A model's description. Nothing outside ``models/`` needs to know where a model came from."""

    name: str  # for URLs
    source: str  # in the grammar of PREDICTOR_MODEL, such as ``torchvision:resnet18``
    input: Preprocessing
    labels: tuple[Label, ...]
    output: Output = field(default_factory=Output)
    version: str = "1"

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Card:
        """Return the card that :meth:`as_json` describes."""
        labels = tuple(Label(*label) for label in content["labels"].values())
        read = {"input": Preprocessing.from_json(content["input"]), "labels": labels}
        return cls(**{**content, **read, "output": Output(**content["output"])})

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
