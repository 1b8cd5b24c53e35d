"""Probes: is the process healthy, and can it answer now? Neither waits for the model."""

from typing import Any

from flask import Blueprint

from predictor.web.request import current_service, probe

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
@probe
def healthz() -> dict[str, str]:
    """Answer 200 while the process is healthy or loading; 500 if it must be replaced."""
    current_service().expect_healthy()
    return {"status": "alive"}


@blueprint.get("/readyz")
@probe
def readyz() -> dict[str, Any]:
    """Answer 200 with the served model when it can answer; 503 before."""
    return {"status": "ready", "model": current_service().expect_ready().info.public()}
