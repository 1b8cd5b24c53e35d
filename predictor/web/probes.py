"""Which views are probes: whoever watches the process asks them, every few seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from flask import current_app, request

View = TypeVar("View", bound=Callable[..., Any])


def probe(view: View) -> View:
    """Mark a view that needs no token, and that the log passes over while all is well."""
    view.is_probe = True  # type: ignore[attr-defined]
    return view


def is_probe(endpoint: str | None) -> bool:
    """Whether the view of an endpoint is one."""
    return getattr(current_app.view_functions.get(endpoint or ""), "is_probe", False)


def is_probed() -> bool:
    """Whether the request in work is a probe's."""
    return is_probe(request.endpoint)
