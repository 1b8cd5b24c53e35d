"""Probes: is the process worth keeping, and can it answer now? Neither waits for the model."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from predictor.errors import InferenceFailed, NotReady
from predictor.web.current import current_classifier
from predictor.web.probes import probe

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
@probe
def healthz() -> dict[str, str]:
    """Alive, also while loading; 500 once the inference thread has died or hangs."""
    if (ailment := current_classifier().ailment()) is not None:
        raise InferenceFailed(ailment)
    return {"status": "alive"}


@blueprint.get("/readyz")
@probe
def readyz() -> dict[str, Any]:
    """Ready, and which model answers; 503 until it is loaded and warm."""
    healthz()
    if current_classifier().draining:
        raise NotReady("The process is about to end; others answer.")
    return {"status": "ready", "model": current_classifier().engine().info.public()}
