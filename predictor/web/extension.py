"""Where the views find the classifier of the app that serves them."""

from __future__ import annotations

from typing import cast

from flask import current_app

from predictor.classifier import Classifier


def current_classifier() -> Classifier:
    """The classifier that the app was created with."""
    return cast(Classifier, current_app.extensions["classifier"])
