"""What is particular to WebP: its chunks are counted before the decoder reads them."""

from collections.abc import Iterator
from itertools import islice

from predictor.errors import TooLarge
from predictor.images.limits import Checked

MAX_CHUNKS = 5000  # each frame of an animation is one
# Of lossless pixels or alpha, which may have a table of codes for every 12 bytes: 4 s for 800 kB.
LOSSLESS, MAX_FAST = (b"VP8L", b"ALPH"), 30_000  # bytes
FRAME, FRAME_HEAD = b"ANMF", 24  # of an animation, and the bytes before its own chunks


def check(data: bytes) -> Checked:
    """Refuse a WebP of many chunks: the decoder reads them while all other threads wait."""
    if sum(1 for _ in islice(_chunks(data), MAX_CHUNKS + 1)) > MAX_CHUNKS:
        raise TooLarge(f"The WebP has more than {MAX_CHUNKS:,} chunks. Re-save it.")
    return Checked(data)


def is_slow(data: bytes) -> bool:
    """Return whether the first frame of a WebP has so many lossless bytes that it may take long."""
    if data[8:12] != b"WEBP" or len(data) < MAX_FAST:
        return False
    for at in islice(_chunks(data), MAX_CHUNKS):
        is_frame = data[at : at + 4] == FRAME
        inside = _chunks(data, at + FRAME_HEAD) if is_frame else [at]
        if any(
            data[at : at + 4] in LOSSLESS and _size(data, at) > MAX_FAST for at in islice(inside, 2)
        ):
            return True
        if is_frame:  # libwebp looks for the first frame elsewhere if this one begins otherwise
            return data[at + FRAME_HEAD : at + FRAME_HEAD + 4] not in (b"VP8 ", *LOSSLESS)
    return False


def _chunks(data: bytes, at: int = 12) -> Iterator[int]:
    """Yield where each chunk begins."""
    end = min(len(data), 8 + int.from_bytes(data[4:8], "little"))  # others may follow the image
    while at + 8 <= end:
        yield at
        at += 8 + (size := _size(data, at)) + size % 2


def _size(data: bytes, at: int) -> int:
    return int.from_bytes(data[at + 4 : at + 8], "little")
