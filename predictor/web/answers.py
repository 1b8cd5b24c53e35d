"""JSON answers that several protocols give."""

from dataclasses import asdict
from typing import Any

from predictor.engine.explainer import Explanation

TOP_K = 5  # classes that the page and the other servers' protocols return by default


def as_numbers(explanation: Explanation) -> dict[str, Any]:
    """Return an explanation as JSON: the prediction, ``heat`` and ``box``."""
    heat = [[round(float(value), 4) for value in row] for row in explanation.heat]
    return asdict(explanation.prediction) | {"box": explanation.box, "heat": heat}
