"""Samples of a TIFF that Pillow cannot unpack: other bit depths, wide channels, floats, planes.

Pillow reads the file as if each byte were a grey pixel; here the bytes become samples.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from predictor.images.colour import to_8_bits

BLOCK = 1_000_000  # samples that are unpacked at once: bit by bit, they take 50 times the memory
UNSIGNED, SIGNED, FLOAT, UNDEFINED = 1, 2, 3, 4  # values of the tag SampleFormat; 5, 6: complex
WHOLE_BITS = (8, 16, 32, 64)  # that are numbers for NumPy
WIDE_BITS = 32  # unsigned samples with fewer bits have their whole range as scale


@dataclass(frozen=True, slots=True)
class Samples:
    """How the samples of a TIFF are stored. The unit of ``size`` is pixels.

    Attributes:
        mode: Pillow's mode for the first channels; La and RGBa are multiplied by alpha already.
        channels: samples of each pixel, those included that are not shown.
        kind: UNSIGNED, SIGNED or FLOAT.
        order: ``<`` or ``>``, the order of bytes in samples of whole bytes.
        planar: whether the file has one channel after the other.
        inverted: whether 0 is white.
        tile_rows: rows of a tile; 0 in a file of strips. The last tiles have rows to leave out.
        differences: whether each sample is stored as the difference to that of the pixel before.
    """

    size: tuple[int, int]
    mode: str
    channels: int
    bits: int
    kind: int
    order: str
    planar: bool
    inverted: bool
    differences: bool
    tile_rows: int
    orientation: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a row; in a planar file, of a row of one channel."""
        return self.bytes_of(self.size[0])

    @property
    def rows(self) -> int:
        """Rows in the file, of all channels in a planar one."""
        height, step = self.size[1], self.tile_rows or 1
        return -(-height // step) * step * self.channels if self.planar else height

    @property
    def wide(self) -> bool:
        """Whether the range of the samples has to be looked at."""
        return self.kind != UNSIGNED or self.bits >= WIDE_BITS

    @property
    def count(self) -> int:
        """Number of all samples."""
        return self.size[0] * self.size[1] * self.channels

    def bytes_of(self, width: int) -> int:
        """Return how many bytes a row of this width has."""
        return -(-width * (1 if self.planar else self.channels) * self.bits // 8)

    def unpack(self, stored: Image.Image) -> Image.Image:
        """Return the image, with 8 bits per channel, from the one whose pixels are bytes."""
        planes = self.channels if self.planar else 1
        rows = np.asarray(stored).reshape(planes, -1, self.row_bytes)[:, : self.size[1]]
        if self.wide:
            values = to_8_bits(self._values(rows).astype(np.float32), self.kind == FLOAT)
        else:
            step = max(1, BLOCK // (self.size[0] * self.channels))
            blocks = (rows[:, top : top + step] for top in range(0, self.size[1], step))
            values = np.concatenate([self._to_8_bits(self._values(block)) for block in blocks])
        values = values[..., : len(self.mode)]
        if self.inverted:
            values[..., 0] ^= 255
        image = Image.frombytes(self.mode, self.size, values.tobytes()).convert(self.mode.upper())
        image.info = stored.info
        image.getexif()[0x0112] = self.orientation
        return image

    def _values(self, rows: NDArray[np.uint8]) -> NDArray[Any]:
        """Bytes ``(planes, H, row_bytes)`` → samples ``(H, W, channels)``; see :meth:`_split`."""
        values = self._split(rows)
        values = values.reshape(*values.shape[:2], self.size[0], -1)
        if self.differences:
            values = np.cumsum(values, axis=2, dtype=values.dtype)
        if self.kind != UNSIGNED:
            values = values.view(f"{'if'[self.kind == FLOAT]}{self.bits // 8}")
        return np.moveaxis(values, 0, 2).reshape(rows.shape[1], self.size[0], self.channels)

    def _split(self, rows: NDArray[np.uint8]) -> NDArray[Any]:
        """Return unsigned samples. Of other depths than NumPy's, only the upper 8 are returned."""
        count = self.size[0] * (1 if self.planar else self.channels)
        if self.bits in WHOLE_BITS:
            whole = rows.view(f"{self.order}u{self.bits // 8}")
            return whole.astype(whole.dtype.newbyteorder("="))
        if self.bits % 8 == 0:
            return rows.reshape(*rows.shape[:2], count, -1)[..., 0 if self.order == ">" else -1]
        bits = np.unpackbits(rows, axis=-1, count=count * self.bits)
        upper = bits.reshape(*rows.shape[:2], count, self.bits)[..., :8]
        return np.packbits(upper, axis=-1)[..., 0]

    def _to_8_bits(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        if self.bits == 16:
            return (values >> 8).astype(np.uint8)
        if self.bits >= 8:
            return values
        greatest = (1 << self.bits) - 1
        return ((values >> 8 - self.bits).astype(np.uint16) * 255 // greatest).astype(np.uint8)
