"""Pictures as strangers send them, each with the status it deserves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from pictures import encode, one_bit_png, scan_bomb


class Case(NamedTuple):
    name: str
    data: bytes
    status: int


def noise(width: int = 64, height: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def _refused() -> Iterator[Case]:
    yield Case("empty", b"", 400)
    for name, data in {
        "text": b"hello",
        "html": b"<html><img></html>",
        "json": b'{"image": 1}',
        "zeros": bytes(5000),
        "pdf": b"%PDF-1.7 and so on",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "zip": b"PK\x03\x04" + bytes(100),
        "icon": encode(noise(32, 32), "ICO"),
        "jpeg 2000": encode(noise(), "JPEG2000"),
    }.items():
        yield Case(name, data, 415)
    jpeg, png = encode(noise(), "JPEG"), encode(noise())
    for tenths in range(1, 10):
        yield Case(f"jpeg cut at {tenths}0 %", jpeg[: len(jpeg) * tenths // 10], 422)
    for cut in (10, 30, 100):
        yield Case(f"png cut at {cut} bytes", png[:cut], 422)
    for format in ("WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        data = encode(noise(), format)
        yield Case(f"{format} cut in the middle", data[: len(data) // 2], 422)
    yield Case("png with a wrong checksum", png[:45] + b"\xff\xff" + png[47:], 422)
    yield Case("jpeg's signature alone", b"\xff\xd8\xff", 422)
    yield Case("gif without a frame", b"GIF89a" + bytes(7), 422)
    yield Case("20,000 × 20,000 one-bit png", one_bit_png(20_000, 20_000), 413)
    yield Case("a progressive jpeg of 1,000 scans", scan_bomb(1_000), 413)
    yield Case("just over the pixel limit", one_bit_png(10_000, 5_001), 413)


def _accepted() -> Iterator[Case]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield Case(f"png {mode}", encode(Image.new(mode, (32, 24))), 200)
    for mode in ("CMYK", "YCbCr", "L"):
        yield Case(f"jpeg {mode}", encode(Image.new(mode, (32, 24)), "JPEG"), 200)
    for mode in ("I", "F", "LAB", "CMYK"):
        yield Case(f"tiff {mode}", encode(Image.new(mode, (32, 24)), "TIFF"), 200)
    for orientation in range(9):
        data = encode(noise(), "JPEG", exif=exif(orientation))
        yield Case(f"exif orientation {orientation}", data, 200)
    for format in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encode(noise(), format, save_all=True, append_images=[noise(64, 48)])
        yield Case(f"animated {format}", data, 200)
    yield Case("a single pixel", encode(Image.new("RGB", (1, 1))), 200)
    yield Case("a ribbon", one_bit_png(100_000, 1), 200)
    yield Case("bytes after the end", encode(noise(), "JPEG") + b"<script>", 200)


BAD_IMAGES = [*_refused(), *_accepted()]
