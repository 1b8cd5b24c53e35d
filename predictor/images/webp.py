"""What is particular to WebP: its chunks are counted before the decoder reads them."""

from collections.abc import Iterator
from itertools import islice
from math import inf, prod

from predictor.errors import TooLarge
from predictor.images.limits import Checked

MAX_CHUNKS = 5000  # each frame of an animation is one
# Before the first frame. Most files have at most 5; a file with more counts as slow.
MAX_CHUNKS_BEFORE = 50
# Of lossless pixels or alpha, which may have a table of codes for every 12 bytes: 4 s for 800 kB.
LOSSLESS, MAX_FAST = (b"VP8L", b"ALPH"), 30_000  # bytes
# Pixels up to which the server itself decodes a WebP: Pillow copies them while all other threads
# wait, 0.15 s for 49 megapixels in 1.9 kB.
MAX_HERE = 16_000_000
FRAME, FRAME_HEAD = b"ANMF", 24  # of an animation, and the bytes before its own chunks


def check(data: bytes) -> Checked:
    """Refuse a WebP of many chunks: the decoder reads them while all other threads wait."""
    if sum(1 for _ in islice(_chunks(data), MAX_CHUNKS + 1)) > MAX_CHUNKS:
        raise TooLarge(f"The WebP has more than {MAX_CHUNKS:,} chunks. Re-save it.")
    return Checked(data)


def is_slow(data: bytes) -> bool:
    """Return whether a WebP is large, or its first frame has many lossless bytes or comes late.

    This is called before the image has its turn: to look at 5,000 chunks takes 4 ms, and 60 clients
    with 20 such images in 2.4 kB of gzip made /healthz wait for 0.4 to 1.0 s.
    """
    if data[8:12] != b"WEBP":
        return False
    if _pixels(data) > MAX_HERE:
        return True
    for at in islice(_chunks(data), MAX_CHUNKS_BEFORE):
        is_frame = data[at : at + 4] == FRAME
        inside = _chunks(data, at + FRAME_HEAD) if is_frame else [at]
        if any(
            data[at : at + 4] in LOSSLESS and _size(data, at) > MAX_FAST for at in islice(inside, 2)
        ):
            return True
        if is_frame:  # libwebp looks for the first frame elsewhere if this one begins otherwise
            return data[at + FRAME_HEAD : at + FRAME_HEAD + 4] not in (b"VP8 ", *LOSSLESS)
        if data[at : at + 4] in (b"VP8 ", b"VP8L"):
            return False
    return True


def _pixels(data: bytes) -> float:
    """Return the number of pixels by the header; inf if it is none of a WebP."""
    kind, numbers = data[12:16], [int.from_bytes(data[at : at + 3], "little") for at in (24, 27)]
    if kind == b"VP8X":
        return (numbers[0] + 1) * (numbers[1] + 1)
    if kind == b"VP8L":  # after a byte: twice 14 bits
        bits = int.from_bytes(data[21:25], "little")
        return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
    sides = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    return prod(sides) if kind == b"VP8 " else inf


def _chunks(data: bytes, at: int = 12) -> Iterator[int]:
    """Yield where each chunk begins."""
    end = min(len(data), 8 + int.from_bytes(data[4:8], "little"))  # others may follow the image
    while at + 8 <= end:
        yield at
        at += 8 + (size := _size(data, at)) + size % 2


def _size(data: bytes, at: int) -> int:
    return int.from_bytes(data[at + 4 : at + 8], "little")
