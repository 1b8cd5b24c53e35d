"""Pictures made on the spot: none is stored."""

from __future__ import annotations

import io
import struct
import zlib
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


def one_bit_png(width: int, height: int) -> bytes:
    """A PNG whose header promises many pixels in a few kilobytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def scan_bomb(scans: int) -> bytes:
    """A progressive JPEG that goes over its pixels once more with every 10 bytes."""
    data = encode(Image.new("RGB", (64, 48)), "JPEG", progressive=True)
    # One component, its first AC coefficient, and nothing to add to it.
    scan = bytes.fromhex("ffda 0008 01 01 00 01 01 10")
    return data[:-2] + scan * scans + data[-2:]
