"""Apps for the tests of this folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from predictor.settings import Settings


@pytest.fixture
def serve(make_client: Callable[..., FlaskClient]) -> Callable[..., FlaskClient]:
    """A client of an app with these settings, written as an operator writes them."""

    def build(**settings: Any) -> FlaskClient:
        environ = {f"PREDICTOR_{name.upper()}": str(text) for name, text in settings.items()}
        parsed = Settings.from_env(environ)
        names = ("tokens", "tokens_file", "rate_limit", "trusted_proxies")
        return make_client(**{name: getattr(parsed, name) for name in names})

    return build


@pytest.fixture
def infer(client: FlaskClient) -> Callable[..., TestResponse]:
    """Post a V2 request: its parts as keyword arguments, or ``data`` and ``headers``."""

    def post(
        model: str = "toy", data: bytes | None = None, headers: Any = (), **content: Any
    ) -> TestResponse:
        body = json.dumps(content) if data is None else data
        return client.post(f"/v2/models/{model}/infer", data=body, headers=headers)

    return post
