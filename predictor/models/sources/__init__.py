"""Where models come from: one small module for each kind of source.

A module has a function ``find(request) -> Found``. Only ``Found.load`` reads the weights.
To add a source, write such a module, and add its word to ``predictor.models.reference.WORDS``, or
its kind of file to the tables of ``predictor.models.sources.file``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from predictor.images.preprocessing import Preprocessing
from predictor.models.description import Description
from predictor.models.labels import Label
from predictor.models.scorer import Loaded
from predictor.settings import Settings


@dataclass(frozen=True, slots=True)
class Request:
    """What the operator asks for."""

    target: str  # the name, path or ``file.py:name`` of the model
    said: Description  # by the settings and ``model.toml``
    labels: tuple[Label, ...] | None  # that the operator gives
    settings: Settings
    cpus: int  # processors for the model

    @property
    def weights(self) -> str:
        """A path, ``auto`` or ``random``."""
        said = self.said.get("weights")
        return "auto" if said is None else str(said.value)


class Found(Protocol):
    """A model that a source has found and not loaded."""

    @property
    def name(self) -> str:
        """The name for URLs, if nobody says another."""

    @property
    def said(self) -> Description:
        """What the model's own files say."""

    def load(self, input: Preprocessing, classes: int | None) -> Loaded:
        """Load the model. ``classes`` is the number of labels; None: as many as the weights have.

        Raises:
            StartError: the model cannot be loaded; the message says what to do.
        """
