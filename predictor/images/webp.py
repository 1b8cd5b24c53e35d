"""What is particular to WebP: its chunks are counted before the decoder reads them."""

from predictor.errors import TooLarge
from predictor.images.limits import Checked

MAX_CHUNKS = 5000  # each frame of an animation is one


def check(data: bytes) -> Checked:
    """Refuse a WebP of many chunks: the decoder reads them while all other threads wait."""
    at, chunks = 12, 0
    end = min(len(data), 8 + int.from_bytes(data[4:8], "little"))  # others may follow the image
    while at + 8 <= end:
        at += 8 + (size := int.from_bytes(data[at + 4 : at + 8], "little")) + size % 2
        if (chunks := chunks + 1) > MAX_CHUNKS:
            raise TooLarge(f"The WebP has more than {MAX_CHUNKS:,} chunks. Re-save it.")
    return Checked(data)
