"""Classify photos with a PyTorch image classifier, through a few plain functions."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from predictor.api import BestClass, create_app, get_prediction, get_predictions
    from predictor.engine.classifier import Classifier
    from predictor.engine.ranking import Prediction
    from predictor.errors import PredictorError
    from predictor.export import export
    from predictor.settings import Settings

__version__ = "0.1.0"
__all__ = ["BestClass", "Classifier", "Prediction", "PredictorError", "Settings"]
__all__ += ["create_app", "export", "get_prediction", "get_predictions"]

# From 1.32 on, ONNX Runtime reports its use to Microsoft. It reads this when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Modules to import at first use: gunicorn's master imports this package and must stay small.
_MODULES = {
    "BestClass": "predictor.api",
    "create_app": "predictor.api",
    "get_prediction": "predictor.api",
    "get_predictions": "predictor.api",
    "Classifier": "predictor.engine.classifier",
    "Prediction": "predictor.engine.ranking",
    "PredictorError": "predictor.errors",
    "Settings": "predictor.settings",
}


def __getattr__(name: str) -> Any:
    """Import the module that defines a public name, and return the name's value."""
    if name == "export":  # a package that can be called
        return import_module("predictor.export")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
