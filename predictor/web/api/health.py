"""Probes of whether the process is healthy and can answer now. No probe waits for the model."""

from typing import Any

from flask import Blueprint

from predictor.web.request import current_store, probe

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
@probe
def healthz() -> dict[str, str]:
    """Answer 200 while the process is healthy or loading; 500 if the process must be replaced."""
    current_store().expect_healthy()
    return {"status": "alive"}


@blueprint.get("/readyz")
@probe
def readyz() -> dict[str, Any]:
    """Answer 200 with what is served if the process can answer now; otherwise 503 or 500.

    The reasons of failures are only in the log: this needs no token, and they may contain paths.
    """
    store = current_store()
    store.expect_ready()
    model = store.default
    models = [
        {"name": one.name, "version": str(one.version), "state": one.state}
        for one in store.statuses()
    ]
    return {"status": "ready", "model": model and model.model.public(), "models": models}
