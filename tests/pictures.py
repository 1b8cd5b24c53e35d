"""Functions that make test images, so that no image files are stored."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def picture(colour: str = "red", size: tuple[int, int] = (32, 24)) -> bytes:
    """A PNG of one colour."""
    return encode(Image.new("RGB", size, COLOURS[colour]))


def ramp() -> Image.Image:
    """A grey image: black at the left, white at the right, darker towards the bottom."""
    x, y = np.meshgrid(np.linspace(0, 1, 64), np.linspace(1, 0.5, 48))
    return Image.fromarray(np.rint(255 * x * y).astype(np.uint8)).convert("RGB")


def difference(image: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference of the values of two images."""
    return float(np.abs(np.asarray(image, float) - np.asarray(other, float)).mean())


def chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + checksum(kind + content)


def checksum(content: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(content))


def png(
    size: tuple[int, int], depth: int, colour: int, rows: bytes, *chunks: bytes, interlaced: int = 0
) -> bytes:
    """A PNG of a kind that Pillow cannot write; ``chunks`` are put before the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlaced))
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *chunks, pixels, chunk(b"IEND", b"")])


def one_bit_png(width: int, height: int) -> bytes:
    """A PNG with many pixels in a few kilobytes."""
    return png((width, height), 1, 0, bytes((width + 7) // 8 + 1) * height)


def scan_bomb(scans: int) -> bytes:
    """A progressive JPEG with many scans: each takes 10 bytes and covers all pixels."""
    data = encode(Image.new("RGB", (64, 48)), "JPEG", progressive=True)
    # A scan of one component's first AC coefficient that changes nothing.
    scan = bytes.fromhex("ffda 0008 01 01 00 01 01 10")
    return data[:-2] + scan * scans + data[-2:]


def slow_scans(width: int, height: int, scans: int) -> bytes:
    """A grey progressive JPEG: each scan refines every coefficient, in 2 bytes per megapixel."""
    size = struct.pack(">HH", height, width)
    runs = "0" + "1" * 14  # 32,767 blocks without a change
    bits = runs * -(-(-(-width // 8) * -(-height // 8)) // 32_767)
    bits += "1" * (-len(bits) % 8)
    run = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return b"".join(
        [
            b"\xff\xd8\xff\xdb\0\x43\0" + b"\1" * 64,  # quantisation
            b"\xff\xc2\0\x0b\x08" + size + b"\1\1\x11\0",
            b"\xff\xc4\0\x14\x00\1" + bytes(15) + b"\x00",  # one code each, of one bit
            b"\xff\xc4\0\x14\x10\1" + bytes(15) + b"\xe0",
            b"\xff\xda\0\x08\1\1\0\0\0\1",  # the first scan, without content
            (b"\xff\xda\0\x08\1\1\0\1\x3f\x10" + run) * scans,
            b"\xff\xd9",
        ]
    )


def jpeg_of_zeros(
    side: int, components: int = 1, scanned: int = 1, frame: int = 0xC2, size: int = 8
) -> bytes:
    """A square JPEG with one scan of so many bytes, for some of its components or all.

    ``frame`` is 0xC0 for a sequential one, 0xC2 for a progressive, and 0xC3 for a lossless one.
    """
    numbers = range(1, components + 1)
    layers = b"".join(bytes([number, 0x11, 0]) for number in numbers)
    scan = b"".join(bytes([number, 0]) for number in numbers[:scanned])
    tables = b"\xff\xc4\0\x14%c\1" + bytes(16)  # one code of one bit
    return b"".join(
        [
            b"\xff\xd8\xff\xdb\0\x43\0" + b"\1" * 64,
            struct.pack(">BBHBHHB", 255, frame, 8 + len(layers), 8, side, side, components),
            layers + tables % 0x00 + tables % 0x10,
            b"\xff\xda" + struct.pack(">HB", 6 + len(scan), scanned) + scan,
            {0xC0: b"\0\x3f\0", 0xC2: b"\0\0\0", 0xC3: b"\1\0\0"}[frame],
            bytes(size) + b"\xff\xd9",
        ]
    )


def avif_of_frames(frames: int) -> bytes:
    """An AVIF whose only item has the same AV1 frame several times."""
    data = bytearray(encode(Image.new("RGB", (64, 48)), "AVIF", speed=10))
    at, mdat = data.index(b"iloc") + 18, data.index(b"mdat")
    (offset,) = struct.unpack_from(">I", data, at)
    data += data[data.index(b"\x32", offset + 13) :] * (frames - 1)
    struct.pack_into(">I", data, at + 4, len(data) - offset)
    struct.pack_into(">I", data, mdat - 4, len(data) - mdat + 4)
    return bytes(data)


def jpeg_tiff(jpeg: bytes, side: int, tiles: int, shared: bool = False) -> bytes:
    """A grey TIFF of ``tiles`` × ``tiles`` square tiles, each of which is the JPEG."""
    count = tiles**2
    base = 8 + 2 + 10 * 12 + 4
    tags = [(256, 4, 1, side * tiles), (257, 4, 1, side * tiles), (258, 3, 1, 8), (259, 3, 1, 7)]
    tags += [(262, 3, 1, 1), (277, 3, 1, 1), (322, 4, 1, side), (323, 4, 1, side)]
    tags += [(324, 4, count, base), (325, 4, count, base + 4 * count)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    data = base + 8 * count
    places = [data + (0 if shared else len(jpeg) * number) for number in range(count)]
    lists = struct.pack(f"<{2 * count}I", *places, *[len(jpeg)] * count)
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", 10) + entries + bytes(4)
    return head + lists + jpeg * (1 if shared else count)


def tiny_webp(megapixels: int) -> bytes:
    """38 bytes; 20 ms of processor time for each megapixel."""
    return encode(Image.new("RGB", (2000, megapixels * 500)), "WEBP", lossless=True, method=0)
