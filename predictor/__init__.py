"""A photo in, the right class out: a PyTorch image classifier behind a few plain functions."""

from __future__ import annotations

import functools
import threading
from typing import Any

from predictor.engine.classifier import Classifier
from predictor.engine.ranking import Prediction, as_answer
from predictor.errors import PredictorError
from predictor.settings import Settings

__all__ = ["Classifier", "Prediction", "PredictorError", "Settings", "get_prediction"]
__version__ = "0.1.0"


def get_prediction(image_bytes: bytes, top_k: int | None = None) -> dict[str, Any]:
    """Classify one encoded image with the model that the environment's settings name.

    Args:
        image_bytes: a whole JPEG, PNG, WebP … file.
        top_k: also name this many classes, best first, with their probabilities.

    Returns:
        The answer of ``POST /predict``: ``{"class_id": "n02124075", "class_name":
        "Egyptian_cat"}``, and with ``top_k`` also ``"predictions"``.

    Raises:
        PredictorError: the model cannot be loaded, or the image cannot be read.
    """
    (outcome,) = _classifier().classify([image_bytes], 1 if top_k is None else top_k)
    if isinstance(outcome, PredictorError):
        raise outcome
    return as_answer(outcome, detailed=top_k is not None)


_first_call = threading.Lock()


def _classifier() -> Classifier:
    """The one classifier of this process, loaded by the first call; the others wait for it."""
    with _first_call:
        classifier = _built()
    classifier.start()
    classifier.loading.result()
    return classifier


@functools.cache
def _built() -> Classifier:
    return Classifier(Settings.from_env())
