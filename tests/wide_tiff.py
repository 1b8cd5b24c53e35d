"""A writer of TIFFs with samples of any depth, which Pillow cannot write."""

from __future__ import annotations

import struct
import zlib

import numpy as np

RAW, DEFLATE = 1, 8  # compressions


def pack(values, bits, order) -> bytes:
    """Pack integers into bytes; those that are not 16, 32 or 64 bits wide begin at the left."""
    if bits in (16, 24, 32, 64):
        return b"".join(
            int(v).to_bytes(bits // 8, "little" if order == "<" else "big") for v in values
        )
    text = "".join(f"{int(v):0{bits}b}" for v in values)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))


def tiff(values, bits, order="<", kind=1, photometric=None, compression=RAW, rows_per_strip=5,
         planar=False, tile=None, extra=(), predictor=1, orientation=1, big=False):  # fmt: skip
    """A TIFF with the samples ``values``, an array (height, width, channels) of bit patterns."""
    height, width, channels = values.shape
    planes = [values[..., n : n + 1] for n in range(channels)] if planar else [values]
    blocks = []
    for plane in planes:
        if tile:
            padded = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
            cut = [padded[y : y + tile, x : x + tile] for y in range(0, padded.shape[0], tile)
                   for x in range(0, padded.shape[1], tile)]  # fmt: skip
        else:
            cut = [plane[y : y + rows_per_strip] for y in range(0, height, rows_per_strip)]
        blocks += [b"".join(pack(row.ravel(), bits, order) for row in block) for block in cut]
    if compression == DEFLATE:
        blocks = [zlib.compress(block) for block in blocks]
    photometric = (1 if channels == 1 else 2) if photometric is None else photometric
    tags = {256: width, 257: height, 258: [bits] * channels, 259: compression, 262: photometric,
            274: orientation, 277: channels, 284: 1 + planar, 317: predictor}  # fmt: skip
    tags |= {322: tile, 323: tile} if tile else {278: rows_per_strip}
    tags |= {338: list(extra)} if extra else {}
    tags |= {339: [kind] * channels} if kind != 1 else {}
    offsets, counts = (324, 325) if tile else (273, 279)
    base, place = 4096, 4096
    tags[counts] = [len(block) for block in blocks]
    tags[offsets] = [place := place + length for length in [0, *tags[counts][:-1]]]
    head, entries, more = (8, "Q", "HHQ") if big else (4, "I", "HHI")
    at, later, fields = 2048, b"", []
    for tag, value in sorted(tags.items()):
        numbers = value if isinstance(value, list) else [value]
        unit, type_ = ("I", 4) if tag in (273, 279, 324, 325, 256, 257) else ("H", 3)
        content = struct.pack(f"{order}{len(numbers)}{unit}", *numbers)
        if len(content) > head:
            where = struct.pack(order + entries, at + len(later))
            later, content = later + content, where
        fields.append(
            struct.pack(order + more, tag, type_, len(numbers)) + content.ljust(head, b"\0")
        )
    mark = b"II" if order == "<" else b"MM"
    start = struct.pack(order + "HHHQQ", 43, 8, 0, 16, len(fields)) if big else struct.pack(
        order + "HIH", 42, 8, len(fields))  # fmt: skip
    directory = mark + start + b"".join(fields) + bytes(head)
    return (directory.ljust(at, b"\0") + later).ljust(base, b"\0") + b"".join(blocks)
