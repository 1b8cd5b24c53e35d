"""Photos as clients send them, and the toy model's answer to the red one."""

from __future__ import annotations

import base64
import io

RED = {"class_id": "n00000000", "class_name": "red_thing"}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def file(data: bytes, name: str = "photo.png") -> tuple[io.BytesIO, str]:
    """A file of a form, for Flask's test client."""
    return io.BytesIO(data), name
