"""The files to mutate: every format, in as many variants as Pillow and this module can write."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec

import numpy as np
from PIL import Image

from bad_images import run_length_bmp
from heic import heic
from pictures import chunk, encode, png
from profiles import SWAPPED, cmyk_profile, grey_profile, rgb_profile
from wide_tiff import tiff


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


def _with_profiles() -> Iterator[bytes]:
    photo, small = _photo(), rgb_profile(((0.6, 0.3), (0.2, 0.7), (0.1, 0.1)), gamma=1.8)
    for format in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF"):
        yield encode(photo, format, icc_profile=small)
    yield encode(photo, "TIFF", icc_profile=SWAPPED)
    for format in ("JPEG", "TIFF"):
        yield encode(photo.convert("L"), format, icc_profile=grey_profile(1.5))
        yield encode(photo.convert("CMYK"), format, icc_profile=cmyk_profile(grid=2))


def _heics() -> Iterator[bytes]:
    photo, exif = _photo(), Image.Exif()
    exif[0x0112] = 6
    yield heic(photo)
    yield heic(photo, 10)
    yield heic(photo, 12, chroma="444")
    yield heic(photo.convert("L"))
    yield heic(photo.convert("RGBA"), color_primaries=12)
    yield heic(_photo(160, 140), tile_size=64)
    photo.info |= {"exif": exif.tobytes(), "icc_profile": SWAPPED}
    yield heic(photo)


@cache
def originals() -> tuple[bytes, ...]:
    """Return the files to mutate. HEICs are among them if pillow-heif is installed."""
    heics = _heics() if find_spec("pillow_heif") else ()
    return (*_jpegs(), *_pngs(), *_tiffs(), *_others(), *_with_profiles(), *heics)
