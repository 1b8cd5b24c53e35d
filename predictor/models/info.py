"""What is served, for people and programs that ask."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RANDOM = "random"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The model's particulars; nothing here needs torch."""

    name: str
    weights: str  # a path, or ``random``
    device: str
    precision: str
    threads: int  # of one forward pass on the CPU
    parameters: int
    classes: int
    stands_in_for: str | None = None  # the model that was asked for and could not be had

    @property
    def notice(self) -> str | None:
        """What nobody who reads an answer may overlook."""
        if self.stands_in_for is not None:
            return (
                f"{self.name} stands in for {self.stands_in_for}, whose weights are not on this"
                " machine and could not be downloaded."
            )
        if self.weights == RANDOM:
            return "The weights are random: every answer is meaningless."
        return None

    def public(self) -> dict[str, Any]:
        """The same for strangers: a file's name without its folder."""
        return asdict(self) | {"weights": Path(self.weights).name}
