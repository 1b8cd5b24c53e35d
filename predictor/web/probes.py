"""Marks views as probes, which monitoring calls every few seconds."""

from collections.abc import Callable
from typing import Any, TypeVar

from flask import current_app, request

View = TypeVar("View", bound=Callable[..., Any])


def probe(view: View) -> View:
    """Mark a view that needs no token and is logged only when it fails."""
    view.is_probe = True  # type: ignore[attr-defined]
    return view


def is_probe(endpoint: str | None) -> bool:
    """Return whether the view of an endpoint is a probe."""
    return getattr(current_app.view_functions.get(endpoint or ""), "is_probe", False)


def is_probed() -> bool:
    """Return whether the current request is a probe."""
    return is_probe(request.endpoint)
