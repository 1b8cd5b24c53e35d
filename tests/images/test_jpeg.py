"""JPEG: segments and scans are counted."""

import struct

import pytest
from PIL import Image

from pictures import encode, scan_bomb
from predictor.errors import TooLarge
from predictor.images.decoding import decode

LIMIT = 50_000_000


def test_jpeg_with_too_many_scans_is_too_large():
    assert decode(scan_bomb(20), LIMIT)
    with pytest.raises(TooLarge, match="scans"):
        decode(scan_bomb(200), LIMIT)


def test_jpeg_with_much_exif_is_too_large():
    """Pillow reads its resolution, of which there may be millions of values."""
    data = encode(Image.new("L", (9, 9)), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", 60_008) + b"Exif\0\0" + bytes(60_000)
    assert decode(data[:2] + segment * 2 + data[2:], LIMIT)
    with pytest.raises(TooLarge, match="EXIF"):
        decode(data[:2] + segment * 3 + data[2:], LIMIT)
