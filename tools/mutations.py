"""Image files of every format, and mutations of the files. Some mutations know the format."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from bad_images import run_length_bmp
from pictures import chunk, encode, png
from wide_tiff import tiff

INTERESTING = (0, 1, 2, 3, 7, 8, 9, 127, 128, 255, 256, 4096, 32767, 32768, 65535, 65536,
               2**24, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)  # fmt: skip


# The files to mutate: every format, in as many variants as Pillow and this module can write.


def _photo(width: int = 40, height: int = 30) -> Image.Image:
    """Draw a ramp with noise, which has runs, edges and a full histogram."""
    ramp = np.add.outer(np.arange(height) * 3, np.arange(width) * 4)[..., None] + [0, 40, 80]
    noise = np.random.default_rng(1).integers(0, 40, (height, width, 3))
    return Image.fromarray(((ramp + noise) % 256).astype(np.uint8))


def _jpegs() -> Iterator[bytes]:
    photo, exif = _photo(), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Somebody's camera"
    yield encode(photo, "JPEG")
    yield encode(photo, "JPEG", progressive=True, optimize=True)
    for progressive in (False, True):  # with a film in place of the end
        yield encode(photo, "JPEG", progressive=progressive)[:-2] + random.Random(1).randbytes(500)
    yield encode(photo, "JPEG", subsampling=0, restart_marker_blocks=2)
    yield encode(photo, "JPEG", exif=exif, icc_profile=bytes(300), xmp=b"<x/>", comment=b"hello")
    yield encode(photo.convert("L"), "JPEG")
    yield encode(photo.convert("CMYK"), "JPEG", progressive=True)
    yield encode(photo, "MPO", save_all=True, append_images=[photo])


def _pngs() -> Iterator[bytes]:
    photo = _photo()
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield encode(photo.convert("L").convert(mode) if mode == "I;16" else photo.convert(mode))
    yield encode(photo.quantize(16), transparency=bytes(range(16)))
    yield encode(photo, transparency=(1, 2, 3), icc_profile=bytes(300), exif=b"MM\0*\0\0\0\x08")
    yield encode(photo, save_all=True, append_images=[photo.rotate(180)])
    palette, key = chunk(b"PLTE", bytes(range(48))), chunk(b"tRNS", b"\0\1")
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(5000)))
    profile = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(5000)))
    size = (33, 17)
    yield png(size, 16, 2, _rows(size, 48))
    yield png(size, 8, 2, _rows(size, 24, ADAM7), text, interlaced=1)
    yield png(size, 4, 3, _rows(size, 4), palette, key)
    yield png(size, 2, 0, _rows(size, 2), key)
    yield png(size, 16, 6, _rows(size, 64, ADAM7), profile, interlaced=1)


WHOLE = ((0, 0, 1, 1),)
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
         (0, 1, 1, 2))  # fmt: skip


def _rows(size: tuple[int, int], bits: int, passes: Sequence[tuple[int, ...]] = WHOLE) -> bytes:
    """Return the rows of a PNG: random bytes, with all five filter types in turn."""
    rng, rows = random.Random(bits), []
    for x, y, step_x, step_y in passes:
        stride = (len(range(x, size[0], step_x)) * bits + 7) // 8
        count = len(range(y, size[1], step_y))
        rows += [bytes([row % 5]) + rng.randbytes(stride) for row in range(count)]
    return b"".join(rows)


def _tiffs() -> Iterator[bytes]:
    photo = _photo()
    kinds = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "lzma")
    for compression in kinds:
        yield encode(photo, "TIFF", compression=compression)
    for compression in ("group3", "group4", "tiff_ccitt"):
        yield encode(photo.convert("1"), "TIFF", compression=compression)
    for mode in ("L", "P", "RGBA", "CMYK", "I", "F", "LAB"):
        yield encode(photo.convert("L").convert(mode) if mode in "IF" else photo.convert(mode)
                     if mode != "LAB" else Image.new("LAB", (9, 9)), "TIFF")  # fmt: skip
    yield encode(photo, "TIFF", big_tiff=True)
    values = np.asarray(photo, np.uint64)
    yield tiff(values * 16, 12, compression=8)
    yield tiff(values * 4, 10, planar=True, tile=16)
    yield tiff((values[..., :1] / 255).view(np.uint64), 64, ">", kind=3)
    yield encode(photo, "TIFF", save_all=True, append_images=[photo], strip_size=200)


def _others() -> Iterator[bytes]:
    photo = _photo()
    more = {"save_all": True, "append_images": [photo.rotate(180)]}
    yield encode(photo, "WEBP")
    yield encode(photo, "WEBP", lossless=True, exif=b"Exif\0\0MM\0*\0\0\0\x08", xmp=b"<x/>")
    yield encode(photo.convert("RGBA"), "WEBP", quality=50)
    yield encode(photo, "WEBP", **more)
    yield encode(photo, "GIF", comment=b"hello")
    yield encode(photo, "GIF", interlace=0, **more)
    yield encode(photo, "AVIF", speed=10)
    yield encode(photo, "AVIF", speed=10, quality=30, **more)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield encode(photo.convert(mode), "BMP")
    rows = b"\x05\x01\x00\x03\x02\x03\x04\x00\x00\x00" * 7 + b"\x00\x02\x01\x01\x00\x01"
    yield run_length_bmp(8, 8, rows)
    for mode in ("1", "L", "RGB", "F", "I;16"):
        image = photo.convert("L").convert(mode) if mode in ("F", "I;16") else photo.convert(mode)
        yield encode(image, "PPM")
    yield b"P3 4 2 100\n# text\n" + b"1 22 100 " * 8
    yield b"P5 4 4 100\n" + bytes(range(16))


@cache
def originals() -> tuple[bytes, ...]:
    """Return the files to mutate."""
    return (*_jpegs(), *_pngs(), *_tiffs(), *_others())


# The mutations. The first ones do not know the format.


def flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def overwrite(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 2, 8))):
        data[rng.randrange(len(data))] = rng.choice((0, 255, rng.randrange(256)))


def renumber(rng: random.Random, data: bytearray) -> None:
    """Overwrite 2 or 4 bytes, often in the header, with a number that tends to break arithmetic."""
    kind = rng.choice(("<H", ">H", "<I", ">I"))
    end = len(data) - struct.calcsize(kind)
    if end < 0:
        return
    offset = rng.randrange(min(end, 64) + 1) if rng.random() < 0.5 else rng.randrange(end + 1)
    value = rng.choice(INTERESTING) & (0xFFFF if kind[1] == "H" else 0xFFFFFFFF)
    struct.pack_into(kind, data, offset, value)


def cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def remove(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 2, 4, 64, 1024))]


def repeat(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    part = data[start : start + rng.choice((1, 4, 12, 64, 256))]
    data[start:start] = part * rng.choice((1, 2, 50))


def splice(rng: random.Random, data: bytearray) -> None:
    """Replace the rest of the file by a part of another file."""
    other = rng.choice(originals())
    data[rng.randrange(len(data)) :] = other[rng.randrange(len(other)) :]


BLIND = (flip, overwrite, renumber, cut, remove, repeat, splice)
ANYWHERE = (flip, overwrite, renumber, repeat, remove)


def rechunk(rng: random.Random, data: bytearray) -> None:
    """Change a PNG's chunks and fix their checksums, so that the parser does not stop at them."""
    chunks, offset = [], 8
    while offset + 12 <= len(data):
        length = int.from_bytes(data[offset : offset + 4], "big")
        chunks.append([data[offset + 4 : offset + 8], data[offset + 8 : offset + 8 + length]])
        offset += 12 + length
    if not chunks:
        return
    _reorder(rng, chunks)
    kind, content = chunks[rng.randrange(len(chunks))]
    if kind == b"IDAT" and rng.random() < 0.7:
        _recompress(rng, content)
    elif content:
        rng.choice(ANYWHERE)(rng, content)
    data[8:] = b"".join(chunk(bytes(k), bytes(c)) for k, c in chunks)


def _reorder(rng: random.Random, parts: list[Any]) -> None:
    choice, index = rng.random(), rng.randrange(len(parts))
    if choice < 0.1 and len(parts) > 1:
        del parts[index]
    elif choice < 0.2:
        parts.insert(rng.randrange(len(parts)), parts[index])
    elif choice < 0.3:
        rng.shuffle(parts)


def _recompress(rng: random.Random, content: bytearray) -> None:
    try:
        rows = bytearray(zlib.decompress(content))
    except zlib.error:
        return
    if rows:
        rng.choice(BLIND[:-1])(rng, rows)
    content[:] = zlib.compress(bytes(rows), 1)


def resegment(rng: random.Random, data: bytearray) -> None:
    """Change one segment of a JPEG, and fix the segment's length."""
    starts, offset = [], 2
    while offset + 4 <= len(data) and data[offset] == 0xFF and data[offset + 1] != 0xDA:
        starts.append(offset)
        offset += 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")
    if not starts:
        return
    start = rng.choice(starts)
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    content = data[start + 4 : start + 2 + length]
    if content:
        rng.choice(ANYWHERE)(rng, content)
    segment = data[start : start + 2] + (len(content) + 2).to_bytes(2, "big") + content
    data[start : start + 2 + length] = segment * rng.choice((1, 1, 1, 2, 20))


def reriff(rng: random.Random, data: bytearray) -> None:
    """Change the chunks of a WebP file. Fix the lengths of the chunks and of the file."""
    chunks, offset = [], 12
    while offset + 8 <= len(data):
        length = int.from_bytes(data[offset + 4 : offset + 8], "little")
        chunks.append([data[offset : offset + 4], data[offset + 8 : offset + 8 + length]])
        offset += 8 + length + length % 2
    if not chunks:
        return
    _reorder(rng, chunks)
    content = chunks[rng.randrange(len(chunks))][1]
    if content:
        rng.choice(ANYWHERE)(rng, content)
    body = b"".join(
        bytes(k) + struct.pack("<I", len(c)) + bytes(c) + bytes(len(c) % 2) for k, c in chunks
    )
    data[4:] = struct.pack("<I", len(body) + 4) + b"WEBP" + body


def retag(rng: random.Random, data: bytearray) -> None:
    """Change one field of one entry in a TIFF's directory."""
    order = "<" if data[:2] == b"II" else ">"
    (offset,) = struct.unpack_from(order + "I", data, 4)
    if offset + 2 > len(data):
        return
    (count,) = struct.unpack_from(order + "H", data, offset)
    entry = offset + 2 + 12 * rng.randrange(max(1, count))
    if entry + 12 > len(data):
        return
    field, kind = rng.choice(((0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "H")))
    value = rng.choice((*INTERESTING, *range(254, 350), rng.randrange(len(data))))
    struct.pack_into(
        order + kind, data, entry + field, value & (2 ** (16 if kind == "H" else 32) - 1)
    )


Mutation = Callable[[random.Random, bytearray], None]
AWARE: dict[bytes, Mutation] = {
    b"\x89PNG": rechunk, b"\xff\xd8": resegment, b"RIFF": reriff, b"II*\0": retag, b"MM\0*": retag,
}  # fmt: skip


def mutate(rng: random.Random, original: bytes) -> bytes:
    """Apply one to four mutations to a file and return the result."""
    data = bytearray(original)
    aware = [do for signature, do in AWARE.items() if original.startswith(signature)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        if data:
            known = aware and len(data) > 16 and rng.random() < 0.6
            (aware[0] if known else rng.choice(BLIND))(rng, data)
    return bytes(data)
