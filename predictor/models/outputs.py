"""A model's outputs → probabilities."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

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
