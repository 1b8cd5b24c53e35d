"""How views find the service of the app that they belong to."""

from typing import cast

from flask import current_app

from predictor.engine.service import Service

KEY = "predictor"  # in the app's extensions


def current_service() -> Service:
    """Return the service of the current app."""
    return cast(Service, current_app.extensions[KEY])
