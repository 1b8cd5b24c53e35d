"""AVIF and HEIC: pictures in the boxes of ISO/IEC 14496-12.

HEIC, the format of iPhones, is decoded by libheif from the optional package pillow-heif.
"""

import io
import re
from importlib.util import find_spec
from typing import Any

from PIL import ImageFile

from predictor.images.unread import recognise

SUFFIXES = {".heic", ".heif"}
# Of the entry of an item with EXIF or XMP, of versions 2 and 3.
METADATA = re.compile(rb"(infe(?:\x02.{7}|\x03.{9}))(?:Exif|mime)", re.DOTALL)


def is_heic(data: bytes) -> bool:
    """Return whether the data begins like a HEIC or HEIF file with HEVC pictures."""
    found = recognise(data) if data[4:8] == b"ftyp" else None
    return found is not None and found[0] == "HEIC"


def can_read_heic() -> bool:
    """Return whether pillow-heif is installed."""
    return find_spec("pillow_heif") is not None


def without_metadata(data: bytes) -> bytes:
    """Return an AVIF or HEIC without EXIF and XMP: only the file's own boxes turn the image.

    Pillow would obey XMP, and could fail on EXIF.
    """
    return METADATA.sub(rb"\1none", data)


def load_library() -> Any:
    """Import pillow-heif, and return its class of images."""
    from pillow_heif import HeifImageFile, options

    # One processor for each image, as with AVIF; and nothing but the image.
    options.DECODE_THREADS = 1
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    return HeifImageFile


def open_heic(data: bytes) -> ImageFile.ImageFile:
    """Read the header of a HEIC and return its primary image, not yet decoded."""
    image: ImageFile.ImageFile = load_library()(io.BytesIO(data))
    if not image.info.get("primary"):  # it cannot be read, and another picture can
        raise ValueError("The primary image of the HEIC is not one of its pictures.")
    return image
