"""HEIC files, by the encoder of pillow-heif, and some that no encoder writes."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

HEADER = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def heic(image: Image.Image, bits: int = 8, **options: Any) -> bytes:
    """The image as a HEIC. Options are those of pillow-heif.

    An orientation in its EXIF is written as boxes (irot, imir), too.
    """
    heif = pytest.importorskip("pillow_heif")
    if bits == 8:
        info, image.info = image.info, {}  # the encoder would turn the image itself
        file, image.info = heif.from_pillow(image), info
    else:
        values = np.asarray(image.convert("RGB")).astype("<u2") * 257
        file = heif.from_bytes("RGB;16", image.size, values.tobytes())
    file.info.update(image.info)
    before, heif.options.SAVE_HDR_TO_12_BIT = heif.options.SAVE_HDR_TO_12_BIT, bits == 12
    buffer = io.BytesIO()
    file.save(buffer, **{"quality": 90, "enc_params": {"preset": "ultrafast"}, **options})
    heif.options.SAVE_HDR_TO_12_BIT = before
    return buffer.getvalue()


def grid_of_one_tile(
    tile: bytes, count: int, size: tuple[int, int], overlay: bool = False, hidden: bool = False
) -> bytes:
    """A HEIC of count × count tiles, all of them the picture of another file, cut to a size.

    An overlay has the pictures on each other, on a canvas of the size. If ``hidden``, the tile is
    the primary picture, and as a thumbnail of the grid it is no picture of its own.
    """
    content = contents(tile)
    pixels, used = content[b"mdat"], [1] * count**2
    grid = struct.pack(">4B2H", 0, 0, count - 1, count - 1, *size)
    if overlay:
        grid = bytes(10) + struct.pack(">2H", *size) + bytes(4 * len(used))
    properties = box(b"hvcC", content[b"hvcC"]) + box(b"ispe", content[b"ispe"])
    properties += full(b"ispe", struct.pack(">2I", *size))
    links = struct.pack(">I HB2B HBB", 2, 1, 2, 0x81, 2, 2, 1, 3)
    kinds = ((1, b"hvc1"), (2, b"iovl" if overlay else b"grid"))
    infos = [full(b"infe", struct.pack(">HH4sB", n, 0, kind, 0), version=2) for n, kind in kinds]
    references = box(b"dimg", struct.pack(f">HH{len(used)}H", 2, len(used), *used))
    if hidden:
        references += box(b"thmb", struct.pack(">3H", 1, 1, 2))

    def head(begin: int) -> bytes:
        places = struct.pack(">4H2I", 1, 0, 0, 1, begin, len(pixels))
        places += struct.pack(">4H2I", 2, 1, 0, 1, 0, len(grid))
        meta = [
            full(b"hdlr", bytes(4) + b"pict" + bytes(13)),
            full(b"pitm", struct.pack(">H", 1 if hidden else 2)),
            full(b"iloc", b"\x44\0" + struct.pack(">H", 2) + places, version=1),
            full(b"iinf", struct.pack(">H", 2) + b"".join(infos)),
            full(b"iref", references),
            box(b"iprp", box(b"ipco", properties) + full(b"ipma", links)),
            box(b"idat", grid),
        ]
        return HEADER + full(b"meta", b"".join(meta))

    return head(len(head(0)) + 8) + box(b"mdat", pixels)


def contents(data: bytes) -> dict[bytes, bytes]:
    """The content of each box, also of those in ``meta``, by type."""
    at, found = 0, {}
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        found[kind] = content = data[at + 8 : at + size]
        if kind in (b"meta", b"iprp", b"ipco"):
            found |= contents(content[4:] if kind == b"meta" else content)
        at += size
    return found


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def full(kind: bytes, content: bytes, version: int = 0) -> bytes:
    return box(kind, bytes([version, 0, 0, 0]) + content)
