"""PPM and PGM whose greatest value is not 255, such as those of 16 bits per channel.

Pillow reads and scales their samples one by one in Python.
"""

import numpy as np
from PIL import Image

SLOW_CODEC = "ppm"


def is_slow(image: Image.Image) -> bool:
    """Return whether Pillow would read the samples of an image one by one."""
    tiles = getattr(image, "tile", [])
    return bool(tiles) and tiles[0].codec_name == SLOW_CODEC


def load(image: Image.Image, data: bytes) -> Image.Image:
    """Return the pixels of a slow image from the file ``data``, as RGB or L.

    Samples above the greatest value are white, as in Pillow.

    Raises:
        ValueError: ``data`` is truncated.
    """
    (tile,) = image.tile  # type: ignore[attr-defined]
    _, greatest = tile.args
    shape = (image.height, image.width, 3)[: 3 if image.mode == "RGB" else 2]
    kind = np.dtype(">u2" if greatest > 255 else np.uint8)
    samples = np.frombuffer(data, kind, np.prod(shape, dtype=int), tile.offset).reshape(shape)
    scale = np.rint(np.arange(greatest + 1) / greatest * 255).astype(np.uint8)
    return Image.fromarray(scale.take(samples, mode="clip"))
