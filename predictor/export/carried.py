"""How photos are read in another Python server: TorchServe's handler and Triton's ``model.py``.

Their exports carry this file and the others that it names, unchanged.
"""

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from predictor.images.cost import Budget
from predictor.images.decoding import decode
from predictor.models.card import Card

DESCRIPTION = "predictor.json"  # the card's JSON
PACKAGE = Path(__file__).parents[1]
# All that the exports import of this package. It needs NumPy and Pillow only.
FILES = (
    "errors.py", "resources.py", "images/*.py", "models/card.py", "models/labels.py",
    "models/outputs.py", "engine/ranking.py", "export/carried.py",
)  # fmt: skip


def carry(folder: Path, card: str) -> None:
    """Copy the files to ``folder/predictor``, and write the card's JSON to ``folder``."""
    for file in (file for pattern in FILES for file in PACKAGE.glob(pattern)):
        copy = folder / "predictor" / file.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        (copy.parent / "__init__.py").touch()
        shutil.copyfile(file, copy)
    (folder / "predictor" / "images" / "__init__.py").touch()
    (folder / DESCRIPTION).write_text(card, "utf-8")


def read_card(folder: Path) -> Card:
    """Return the card that a folder carries."""
    return Card.from_json(json.loads((folder / DESCRIPTION).read_text("utf-8")))


def prepare(
    photo: bytes, card: Card, max_pixels: int = 50_000_000, max_decode_s: float = 15
) -> NDArray[np.uint8]:
    """Decode and prepare a photo as a server with default settings: ``(height, width, C)`` uint8.

    Raises:
        RequestError: the photo cannot be decoded, or has more than ``max_pixels``, or would cost
            more CPU seconds than ``max_decode_s`` or than its bytes allow.
        Overloaded: there is not enough memory.
    """
    charge = partial(Budget(len(photo)).charge, max_decode_s, max_pixels)
    alpha = card.input.channels == "RGBA"
    return card.input(decode(photo, max_pixels, card.input.enough_pixels, charge, alpha))


def batch(images: Sequence[NDArray[np.uint8]], card: Card) -> NDArray[np.float32]:
    """Normalise N prepared photos: ``(N, C, height, width)`` float32, contiguous."""
    pixels = np.stack(images).astype(np.float32)
    pixels = (pixels - card.input.offset) / card.input.divisor
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
