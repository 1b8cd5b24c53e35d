"""Pictures made on the spot: none is stored."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def picture(colour: str = "red", size: tuple[int, int] = (32, 24)) -> bytes:
    """A PNG of one colour."""
    return encode(Image.new("RGB", size, COLOURS[colour]))
