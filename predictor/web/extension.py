"""Where the views find the classifier of the app that serves them."""

from __future__ import annotations

from typing import cast

from flask import current_app

from predictor.classifier import Classifier
from predictor.metrics import Metrics


def current_classifier() -> Classifier:
    """The classifier that the app was created with."""
    return cast(Classifier, current_app.extensions["classifier"])


def current_metrics() -> Metrics:
    """What the app that serves counts with."""
    return cast(Metrics, current_app.extensions["metrics"])
