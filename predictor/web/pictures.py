"""Pictures as responses."""

import io
from typing import TYPE_CHECKING

from flask import Response

if TYPE_CHECKING:
    from PIL.Image import Image

PNG_LEVEL = 1  # level 6 takes three times as long, for a file smaller by a sixth


def as_png(picture: "Image", name: str) -> Response:
    """Return a picture as a PNG. ``name`` is for a client that saves it."""
    png = io.BytesIO()
    picture.save(png, "PNG", compress_level=PNG_LEVEL)
    response = Response(png.getvalue(), mimetype="image/png")
    response.headers.set("Content-Disposition", "inline", filename=name)
    return response
