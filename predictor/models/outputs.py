"""What a model returns → logits → probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from predictor.errors import ModelError

Activation = Literal["softmax", "sigmoid", "probabilities"]


@dataclass(frozen=True, slots=True)
class Output:
    """How a model's outputs become probabilities, and where they are among what it returns."""

    activation: Activation = "softmax"
    threshold: float | None = None  # of several labels at once: the least probability of a label
    select: str | int | None = None  # key or index of the logits in a dict or a tuple

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """``(outputs,)`` float32 logits → ``(classes,)`` float64 probabilities, 0 to 1."""
        exponentials = np.exp(logits.astype(np.float64) - logits.max())
        probabilities: NDArray[np.float64] = exponentials / exponentials.sum()
        return probabilities

    def best(self, logits: NDArray[np.float32]) -> int:
        """Return the index of the most probable class."""
        return int(logits.argmax())


def pick(returned: Any, select: str | int | None = None) -> Any:
    """Return the logits among what a model returned, an array of any library.

    Without ``select``, they are the array itself; the part called ``logits`` of a dict, a named
    tuple (Inception's) or an object (Hugging Face's); or the only part with a row per image.

    Raises:
        ModelError: there is no such part, or several parts could be the logits.
    """
    parts = {"": returned} if hasattr(returned, "shape") and select is None else _parts(returned)
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


def _parts(returned: Any) -> dict[Any, Any]:
    """Return the parts by key or index; none if there is only one array."""
    if isinstance(returned, Mapping):
        return dict(returned)
    if isinstance(returned, tuple | list):
        named = getattr(returned, "_asdict", None)
        return named() if named else dict(enumerate(returned))
    return {} if hasattr(returned, "shape") else dict(getattr(returned, "__dict__", {}))


def _has_rows(part: Any) -> bool:
    """Whether an array is ``(N, outputs)``, ``(N, outputs, 1, 1)``, or has no axis of length 1."""
    return hasattr(part, "shape") and all(length == 1 for length in part.shape[2:])


def _shape(part: Any) -> str:
    return str(tuple(part.shape)) if hasattr(part, "shape") else type(part).__name__
