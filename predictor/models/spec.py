"""The facts about a model before it is loaded, and those that clients can read after loading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from predictor.images.preprocessing import Preprocessing

RANDOM = "random"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """How a model is built, how its input is prepared and where its published weights are."""

    name: str
    build: Callable[[int], nn.Module]  # number of classes → untrained network
    preprocessing: Preprocessing
    url: str | None = None  # of the published weights; its file name ends in a SHA-256 prefix
    packaged: Callable[[], Path] | None = None  # returns their path in a package
    bfloat16: bool = False  # whether measurements showed the same answers as in float32


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What clients can read about the loaded model."""

    name: str
    weights: str  # a path, or ``random``
    device: str
    precision: str
    threads: int  # of one forward pass on the CPU
    parameters: int
    classes: int
    stands_in_for: str | None = None  # the model whose weights could not be downloaded

    @property
    def notice(self) -> str | None:
        """A warning to show with every answer, or None."""
        if self.stands_in_for is not None:
            return (
                f"{self.name} stands in for {self.stands_in_for}, whose weights are not on this"
                " machine and could not be downloaded."
            )
        if self.weights == RANDOM:
            return "The weights are random: every answer is meaningless."
        return None

    def public(self) -> dict[str, Any]:
        """Return the fields for clients, with the weights' file name instead of their path."""
        return asdict(self) | {"weights": Path(self.weights).name}
