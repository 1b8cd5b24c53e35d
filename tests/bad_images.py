"""Good, bad and hostile image files, each with the HTTP status that it must get."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from pictures import chunk, encode, one_bit_png, png, scan_bomb


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
        yield Case(f"jpeg truncated at {tenths}0 %", jpeg[: len(jpeg) * tenths // 10], 422)
    for cut in (10, 30, 100):
        yield Case(f"png truncated at {cut} bytes", png[:cut], 422)
    for format in ("WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        data = encode(noise(), format)
        yield Case(f"{format} truncated in the middle", data[: len(data) // 2], 422)
    yield Case("png with a wrong checksum", png[:45] + b"\xff\xff" + png[47:], 422)
    yield Case("only the signature of a jpeg", b"\xff\xd8\xff", 422)
    yield Case("gif without a frame", b"GIF89a" + bytes(7), 422)
    yield Case("20,000 × 20,000 one-bit png", one_bit_png(20_000, 20_000), 413)
    yield Case("a progressive jpeg of 1,000 scans", scan_bomb(1_000), 413)
    yield Case("just over the pixel limit", one_bit_png(10_000, 5_001), 413)


def tiff(*tags: tuple[int, int, int, int]) -> bytes:
    """A TIFF that is only a directory: tag, type, count and value of each entry."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(400)


def grey_tiff(*tags: tuple[int, int, int, int]) -> bytes:
    size = ((256, 4, 1, 8), (257, 4, 1, 8))
    return tiff(*size, (258, 3, 1, 8), (259, 3, 1, 5), (262, 3, 1, 1), (277, 3, 1, 1), *tags)


def run_length_bmp(width: int, height: int, rows: bytes = b"\0\1") -> bytes:
    """A BMP with run lengths; missing rows are black."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(rows), 0, 0, 256, 0)
    start = struct.pack("<2sIHHI", b"BM", 1078 + len(rows), 0, 0, 1078)
    return start + header + bytes(1024) + rows


def exif_segments(count: int) -> bytes:
    """A JPEG with many EXIF segments: Pillow appends each to a copy of those before it."""
    jpeg = encode(noise(), "JPEG")
    return jpeg[:2] + b"\xff\xe1\0\x09Exif\0\0x" * count + jpeg[2:]


def _bombs() -> Iterator[Case]:
    """Small files that would keep a parser busy for long or fill the memory."""
    yield from _png_bombs()
    yield from _jpeg_bombs()
    yield from _other_bombs()


def _png_bombs() -> Iterator[Case]:
    rows = bytes(25 * 8)
    eight_mb = zlib.compress(bytes(2**23))
    for kind in (b"zTXtk\0\0", b"iTXtk\0\1\0\0\0", b"iCCPk\0\0"):
        parts = [chunk(kind[:4], kind[4:] + eight_mb)] * 200
        yield Case(f"a png with 8 MB in 200 {kind[:4].decode()} chunks",
                   png((8, 8), 8, 2, rows, *parts), 200)  # fmt: skip
    empty = chunk(b"abCd", b"") * 110_000
    yield Case("a png with 110,000 chunks", png((8, 8), 8, 2, rows, empty), 413)
    yield Case("a png with 110,000 chunks at its end", png((8, 8), 8, 2, rows)[:-12] + empty, 413)


def _jpeg_bombs() -> Iterator[Case]:
    jpeg = encode(noise(), "JPEG")
    yield Case("a jpeg with 600 exif segments", exif_segments(600), 413)
    comments = b"\xff\xfe\0\2" * 101
    yield Case("a jpeg with 101 comments", jpeg[:2] + comments + jpeg[2:], 413)
    at = jpeg.index(b"\xff\xc0")
    frame = jpeg[at : jpeg.index(b"\xff\xc4")]
    yield Case("a jpeg with two frames", jpeg[:at] + frame + jpeg[at:], 413)
    for name, junk in {"zeros": b"\0", "fill bytes": b"\xff", "restarts": b"\xff\xd0"}.items():
        yield Case(
            f"a jpeg with 250,000 {name} inside",
            jpeg[:2] + b"\xff\xfe\0\2" + junk * 250_000 + jpeg[2:],
            413,
        )


def _other_bombs() -> Iterator[Case]:
    head, frame = b"GIF89a\4\0\4\0\x91\0\0" + bytes(12), b",\0\0\0\0%b\0\2\2\x44\1\0;"
    comment = b"!\xfe" + b"\1a" * 2600 + b"\0"
    yield Case("a gif with a comment in one-byte blocks", head + comment + frame % b"\4\0\4\0", 413)
    yield Case("a gif with 5,001 bytes between its parts", head + b"j" * 5001 + frame, 413)
    yield Case("a gif with a frame larger than its canvas", head + frame % b"\x28\x23\x28\x23", 413)
    strips = (273, 4, 200_000, 200), (278, 4, 1, 1), (279, 4, 200_000, 200)
    yield Case("a tiff with 200,000 strips", grey_tiff(*strips), 422)
    yield Case("a tiff with 200,000 numbers as resolution", grey_tiff((282, 5, 200_000, 200)), 422)
    tiles = (322, 4, 1, 30_000), (323, 4, 1, 30_000), (324, 4, 1, 200), (325, 4, 1, 100)
    yield Case("a tiff with a tile of 900 megapixels", grey_tiff(*tiles), 422)
    yield Case("a bigtiff that pillow takes for a small one", b"MM\0+" + bytes(400), 415)
    yield Case("a tiff whose directory is outside the file", b"II*\0\xff\xff\xff\xff", 422)
    yield Case("a bmp with 49 megapixels in runs", run_length_bmp(7000, 7000), 413)
    runs = b"\5\5" + b"\xff\5" * 110_000
    yield Case("a bmp with runs outside the image", run_length_bmp(5, 7000, runs), 413)
    yield Case("a truncated ppm of other values", b"P5 3000 3000 254\n" + bytes(9), 422)
    yield Case("a ppm as text", b"P2 3 1 255\n1 2 3\n", 415)
    yield Case("a ppm with a long comment", b"P6 #" + bytes(5001) + b"\n1 1 255\n123", 413)
    yield Case("a ppm with 5,001 blanks in its header", b"P6" + b" " * 5001 + b"1 1 255\n123", 413)
    webp = bytearray(
        encode(noise(8, 8), "WEBP", save_all=True, append_images=[noise(8, 8).rotate(180)])
    )
    webp[24:30] = struct.pack("<I", 12_999)[:3] * 2
    yield Case("a webp with a canvas of 169 megapixels", bytes(webp), 413)
    parts = encode(noise(), "WEBP") + b"abcd\0\0\0\0" * 5001
    parts = parts[:4] + struct.pack("<I", len(parts) - 8) + parts[8:]
    yield Case("a webp with 5,001 chunks", parts, 413)
    avif = encode(noise(), "AVIF").replace(
        b"ispe\0\0\0\0" + struct.pack(">II", 64, 48),
        b"ispe\0\0\0\0" + struct.pack(">II", 16_000, 16_000),
    )
    yield Case("an avif with 256 megapixels", avif, 413)


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
    yield Case("100,000 × 1 pixels", one_bit_png(100_000, 1), 200)
    video = encode(noise(), "JPEG") + b"\xff\xda" * 1000
    yield Case("a phone's photo followed by its video", video, 200)
    yield Case("a webp followed by zeros", encode(noise(), "WEBP") + bytes(100_000), 200)
    yield Case("a jpeg with ten exif segments", exif_segments(10), 200)
    yield Case("a bmp with runs", run_length_bmp(64, 48, b"\x40\1\0\0" * 48), 200)
    photo = run_length_bmp(400, 200, (b"\2\5" * 200 + b"\0\0") * 200)
    yield Case("a bmp with 40,000 runs", photo, 200)
    yield Case("a ppm with a comment of 4 kB", b"P6 #" + bytes(4000) + b"\n1 1 255\n123", 200)
    yield Case("a jpeg followed by other bytes", encode(noise(), "JPEG") + b"<script>", 200)


BAD_IMAGES = [*_refused(), *_bombs(), *_accepted()]
