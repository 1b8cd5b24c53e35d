"""Mutations of image files. Some of them know the format."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

from pictures import chunk
from tools.originals import originals

INTERESTING = (0, 1, 2, 3, 7, 8, 9, 127, 128, 255, 256, 4096, 32767, 32768, 65535, 65536,
               2**24, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)  # fmt: skip


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


BOXES = (b"ftyp", b"meta", b"pitm", b"iloc", b"iinf", b"infe", b"iref", b"dimg", b"auxl", b"iprp",
         b"ipco", b"ipma", b"ispe", b"hvcC", b"av1C", b"colr", b"irot", b"imir", b"clap", b"pixi",
         b"auxC", b"idat", b"grid", b"mdat")  # fmt: skip


def rebox(rng: random.Random, data: bytearray) -> None:
    """Change a field near the beginning of a box in an AVIF or HEIC."""
    offset = data.find(rng.choice(BOXES)) + rng.randrange(-4, 40)
    if 0 <= offset < len(data) - 4:
        kind = rng.choice("BBHI")
        value = rng.choice((*INTERESTING, *range(9))) % 2 ** (8 * struct.calcsize(kind))
        struct.pack_into(">" + kind, data, offset, value)


Mutation = Callable[[random.Random, bytearray], None]
AWARE: dict[bytes, Mutation] = {
    b"\x89PNG": rechunk, b"\xff\xd8": resegment, b"RIFF": reriff, b"II*\0": retag, b"MM\0*": retag,
    b"\0\0\0": rebox,  # the size of the box ftyp
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
