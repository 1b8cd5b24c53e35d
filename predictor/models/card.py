"""The description of a model: what it takes, what it answers, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from predictor.errors import ModelError
from predictor.models.description import describe, input_of, table
from predictor.models.labels import Label, load_labels
from predictor.models.outputs import Output

if TYPE_CHECKING:
    from predictor.images.preprocessing import Preprocessing

KEYS = ("name", "version", "source", "labels", "input.size", "output.activation")


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
        """Return the form that model files carry, with the keys of ``model.toml``."""
        return {
            "name": self.name,
            "version": self.version,
            "source": self.source,
            "labels": {str(index): list(label) for index, label in enumerate(self.labels)},
            "input": self.input.as_json(),
            "output": self.output.as_json(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], origin: str) -> Card:
        """Read the form that :meth:`as_json` writes. ``origin`` is for messages.

        Raises:
            StartError: a key is missing, or a key or a value is not valid.
        """
        said = describe(content, origin)
        if missing := [key for key in KEYS if key not in said]:
            raise ModelError(f"{origin} must have the keys {', '.join(missing)}.")
        name, version, source, labels = (said[key].value for key in KEYS[:4])
        output = Output(**table(said, "output"))
        return cls(name, source, input_of(said, {}, name), load_labels(labels), output, version)
