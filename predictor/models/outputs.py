"""What a model returns → logits → probabilities."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from predictor.errors import ModelError

log = logging.getLogger(__name__)

Activation = Literal["softmax", "sigmoid", "probabilities"]
Logits = NDArray[np.float32]

THRESHOLD = 0.5  # the default for several labels at once
SLACK = 0.01  # of sums of rounded probabilities
CHOICE = (
    'Set PREDICTOR_ACTIVATION, or in model.toml [output] activation, to "probabilities" if the'
    ' outputs are probabilities already, or to "sigmoid" if they are logits of a sigmoid.'
)


@dataclass(frozen=True, slots=True)
class Output:
    """How a model's outputs become probabilities, and where they are among what it returns.

    A single output is the evidence for the second of two classes.
    """

    activation: Activation = "softmax"
    threshold: float | None = None  # of several labels at once: the least probability of a label
    select: str | int | None = None  # key or index of the logits in a dict or a tuple

    def probabilities(self, logits: Logits) -> NDArray[np.float64]:
        """``(outputs,)`` float32 logits → ``(classes,)`` float64 probabilities, 0 to 1."""
        found: NDArray[np.float64] = logits.astype(np.float64)
        if self.activation == "softmax":
            found = np.exp(found - found.max())
            found /= found.sum()
        if self.activation == "sigmoid":
            found = np.exp(-np.logaddexp(0, -found))  # never overflows
        found = found.clip(0, 1)
        return found if len(found) > 1 else np.concatenate((1 - found, found))

    def best(self, logits: Logits) -> tuple[int, float]:
        """Return the index of the most probable class, and its probability, 0 to 1."""
        probabilities = self.probabilities(logits)
        index = int(probabilities.argmax())
        return index, float(probabilities[index])

    def evidence(self, logits: Logits, class_index: int | None = None) -> Logits:
        """Return how each output counts as evidence for a class; None: the most probable class.

        ``(outputs,)`` float32 → ``(outputs,)`` float32.
        """
        index = self.best(logits)[0] if class_index is None else class_index
        if len(logits) == 1:
            return np.array([1 if index else -1], np.float32)
        counts: Logits = np.eye(1, len(logits), index, np.float32)[0]
        return counts

    def as_json(self) -> dict[str, Any]:
        """Return the fields that say something."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def describe(self) -> str:
        """Return the activation and the threshold for people."""
        threshold = "" if self.threshold is None else f", labels from {self.threshold:g}"
        return f"{self.activation}{threshold}"


def settle(given: Mapping[str, Any], outputs: int, probed: Logits | None, name: str) -> Output:
    """Complete what is given as ``[output]`` for a model with this number of outputs.

    ``probed`` are its outputs for some photos, ``(N, outputs)``; None: they are known to be logits.

    Raises:
        ModelError: what is given does not fit the outputs, or they could be two things.
    """
    inside = probed is not None and bool((probed >= 0).all() and (probed <= 1 + SLACK).all())
    activation = given.get("activation") or _automatic(outputs, probed if inside else None, name)
    threshold = given.get("threshold")
    if activation == "softmax" and outputs == 1:
        raise ModelError(f"{name} has one output: its activation cannot be softmax. {CHOICE}")
    if activation == "probabilities" and not inside:
        raise ModelError(
            f"{name} answers test photos with numbers outside 0 to 1: its activation cannot be"
            " probabilities. Set it to softmax, or to sigmoid if several labels can be right."
        )
    if threshold is not None and (activation == "softmax" or outputs == 1):
        fact = "one output" if outputs == 1 else "the activation softmax"
        raise ModelError(
            f"{name} has {fact}, and output.threshold is for several labels at once. Remove it, or"
            " set the activation to sigmoid."
        )
    if activation == "sigmoid" and outputs > 1 and threshold is None:
        threshold = THRESHOLD
    return Output(activation, threshold, given.get("select"))


def _automatic(outputs: int, inside: Logits | None, name: str) -> Activation:
    """Return the activation that the outputs show. ``inside`` are outputs from 0 to 1, or None."""
    if outputs == 1:
        if inside is not None:
            raise ModelError(f"{name} answers test photos with a number from 0 to 1. {CHOICE}")
        return "sigmoid"
    if inside is None:
        return "softmax"
    if np.allclose(inside.sum(1), 1, 0, SLACK):
        log.info("The outputs of %s are probabilities already: they sum to 1.", name)
        return "probabilities"
    log.warning("%s answers test photos with numbers from 0 to 1. %s", name, CHOICE)
    return "softmax"


def pick(returned: Any, select: str | int | None = None) -> Any:
    """Return the logits among what a model returned, an array of any library.

    Without ``select``, they are the array itself; the part called ``logits`` of a dict, a named
    tuple (Inception's) or an object (Hugging Face's); or the only part with a row per image.

    Raises:
        ModelError: there is no such part, or several parts could be the logits.
    """
    if hasattr(returned, "shape") and select is not None:
        raise ModelError(f"The model returns one array: remove [output] select = {select!r}.")
    parts = {"": returned} if hasattr(returned, "shape") else parts_of(returned)
    if isinstance(select, int) and select not in parts and 0 <= select < len(parts):
        select = [*parts][select]
    rows = [key for key, part in parts.items() if _has_rows(part)]
    if select is None and ("logits" in rows or len(rows) == 1):
        select = "logits" if "logits" in rows else rows[0]
    if select is None or select not in rows:
        found = ", ".join(f"{key} {_shape(part)}".lstrip() for key, part in parts.items())
        raise ModelError(
            f"The model returns {found or type(returned).__name__}. One part must have the shape"
            " (N, outputs); name it in model.toml: [output] select = a key or an index."
        )
    return parts[select]


def parts_of(returned: Any) -> dict[Any, Any]:
    """Return the parts of what a model returned, by key or index."""
    if isinstance(returned, Mapping):
        return dict(returned)
    if isinstance(returned, tuple | list):
        named = getattr(returned, "_asdict", None)
        return named() if named else dict(enumerate(returned))
    return dict(getattr(returned, "__dict__", {}))


def _has_rows(part: Any) -> bool:
    """Whether an array is ``(N, outputs)``, ``(N, outputs, 1, 1)``, or has no axis of length 1."""
    return hasattr(part, "shape") and all(length == 1 for length in part.shape[2:])


def _shape(part: Any) -> str:
    return str(tuple(part.shape)) if hasattr(part, "shape") else type(part).__name__
