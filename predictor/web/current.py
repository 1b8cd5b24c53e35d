"""Where the views find the classifier of the app that serves them."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from flask import current_app

from predictor.engine.classifier import Classifier
from predictor.engine.metrics import Metrics
from predictor.errors import UnknownModel, UnknownVersion


def current_classifier() -> Classifier:
    """The classifier that the app was created with."""
    return cast(Classifier, current_app.extensions["classifier"])


def expect_model(name: str, version: str, versions: Collection[str]) -> None:
    """Go on only for the model that is served here, in one of these versions.

    Raises:
        NotReady: there is no model yet.
        UnknownModel: another one is meant.
        UnknownVersion: another version is meant.
    """
    served = current_classifier().name
    if name != served:
        raise UnknownModel(f"There is no model {name!r} here; {served!r} is served.")
    if version not in versions:
        there = " or ".join(map(repr, versions))
        raise UnknownVersion(f"There is no version {version!r} of {served!r}; there is {there}.")


def current_metrics() -> Metrics:
    """What the app that serves counts with."""
    return cast(Metrics, current_app.extensions["metrics"])
