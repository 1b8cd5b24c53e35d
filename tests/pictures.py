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


def chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + checksum(kind + content)


def checksum(content: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(content))


def png(
    size: tuple[int, int], depth: int, colour: int, rows: bytes, *chunks: bytes, interlaced: int = 0
) -> bytes:
    """A PNG by hand, of kinds that Pillow does not write; ``chunks`` come before the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlaced))
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *chunks, pixels, chunk(b"IEND", b"")])


def one_bit_png(width: int, height: int) -> bytes:
    """A PNG whose header promises many pixels in a few kilobytes."""
    return png((width, height), 1, 0, bytes((width + 7) // 8 + 1) * height)


def scan_bomb(scans: int) -> bytes:
    """A progressive JPEG that goes over its pixels once more with every 10 bytes."""
    data = encode(Image.new("RGB", (64, 48)), "JPEG", progressive=True)
    # One component, its first AC coefficient, and nothing to add to it.
    scan = bytes.fromhex("ffda 0008 01 01 00 01 01 10")
    return data[:-2] + scan * scans + data[-2:]
