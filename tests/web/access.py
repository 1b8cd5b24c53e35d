"""Tokens, and the headers with which a client sends them."""

from __future__ import annotations

import base64

TOKEN, OTHER = "correct-horse-battery", "staple.0123456789=="


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def basic(text: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}
