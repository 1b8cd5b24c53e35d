"""The size of AV1 frames, by the headers of the AV1 specification (5.5 and 5.9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from predictor.errors import TooLarge

FREE = 2  # the frame header says it itself: SELECT_SCREEN_CONTENT_TOOLS, SELECT_INTEGER_MV
KEY, SWITCH = 0, 3  # types of frames


class Sequence(NamedTuple):
    """What a sequence header says about the headers of its frames."""

    pixels: int  # of a frame that has no size of its own
    is_still: bool  # short headers, in which a frame cannot have a size of its own
    tools: int = FREE  # for pictures of screens
    vectors: int = FREE
    id_bits: int = 0


def read_sequence(header: bytes) -> Sequence:
    """Read the content of a sequence header.

    Raises:
        TooLarge: it has layers, or what only videos have.
    """
    bits = _reader(header)
    bits(4)
    if is_still := bool(bits(1)):
        bits(5)
    else:
        _skip_points(bits)
    widths, heights = bits(4) + 1, bits(4) + 1
    pixels = (bits(widths) + 1) * (bits(heights) + 1)
    if is_still:
        return Sequence(pixels, True)
    id_bits = bits(4) + 2 + bits(3) + 1 if bits(1) else 0
    bits(7)
    if bits(1):
        bits(2)
    tools = FREE if bits(1) else bits(1)
    vectors = FREE if not tools or bits(1) else bits(1)
    return Sequence(pixels, False, tools, vectors, id_bits)


def has_own_size(frame: bytes, sequence: Sequence) -> bool:
    """Return whether the content of a frame header gives another size than the sequence's."""
    bits = _reader(frame)
    if sequence.is_still or bits(1):  # or it shows a frame that has been decoded
        return False
    kind, is_shown = bits(2), bits(1)
    if not is_shown:
        bits(1)
    if not (kind == SWITCH or (kind == KEY and is_shown)):
        bits(1)
    bits(1)
    tools = bits(1) if sequence.tools == FREE else sequence.tools
    if tools and sequence.vectors == FREE:
        bits(1)
    bits(sequence.id_bits)
    return kind == SWITCH or bool(bits(1))


def _skip_points(bits: Callable[[int], int]) -> None:
    """Read the operating points, of which there must be one, and what is before them."""
    if bits(1):  # times
        bits(64)
        if bits(1):  # the interval, a number of variable length
            zeros = next((count for count in range(32) if bits(1)), 32)
            bits(zeros)
        if bits(1):
            raise TooLarge("The AVIF has the model of a video decoder. Re-save it without.")
    delays = bits(1)
    if bits(5):
        raise TooLarge("The AVIF has layers. Re-save it without layers.")
    bits(12)
    if bits(5) > 7:
        bits(1)
    if delays and bits(1):
        bits(4)


def _reader(header: bytes) -> Callable[[int], int]:
    """Return a function that reads the next whole number of so many bits; 0 behind the end."""
    left, size = int.from_bytes(header, "big"), 8 * len(header)

    def read(count: int) -> int:
        nonlocal size
        size -= count
        return (left >> size if size >= 0 else left << -size) & ((1 << count) - 1)

    return read
