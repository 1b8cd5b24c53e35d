"""What the runtimes of the artefacts share: photos are prepared by the artefact's own card."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from predictor.engine.cpus import available_cpus
from predictor.images.decoding import decode
from predictor.images.preprocessing import Pixels
from predictor.models import description, loading
from predictor.models.card import Card
from predictor.models.labels import Label, load_labels
from predictor.models.outputs import Logits, Output
from predictor.settings import PILLOWS_LIMIT, Settings

BATCH = 8  # photos at once in the proof, besides each photo alone


class Answers(NamedTuple):
    """What a runtime answers to N photos."""

    # ``(N, outputs)`` float32: logits, or ``(N, classes)`` logarithms of probabilities. NaN for
    # those that the runtime does not mention.
    logits: Logits
    # The best class of each photo as the runtime names it: its id and its name, or "" for what it
    # does not name.
    best: Sequence[Label]


Run = Callable[[Sequence[bytes]], Answers]  # encoded photos → what the runtime answers


def read_card(text: str | bytes | None, origin: str) -> Card:
    """Return the card from the JSON that an artefact carries.

    Raises:
        StartError: it is not complete, or has an invalid value.
    """
    said = description.carried(text, origin)
    values = {key: description.value_of(said, key) for key in said}
    return Card(
        values["name"],
        origin,
        description.input_of(said, {}, origin),
        load_labels(values["labels"]),
        Output(**description.table(said, "output")),
        values["version"],
    )


def prepare(photo: bytes, card: Card) -> Pixels:
    """Decode and resize a photo as the server does by default: ``(height, width, C)`` uint8."""
    input = card.input
    image = decode(photo, PILLOWS_LIMIT, input.enough_pixels, alpha=input.channels == "RGBA")
    return input(image)


def batch(photos: Sequence[bytes], card: Card) -> NDArray[np.float32]:
    """Decode, resize and normalise N photos: ``(N, C, height, width)`` float32, contiguous."""
    pixels = np.stack([prepare(photo, card) for photo in photos]).astype(np.float32)
    pixels = (pixels - card.input.offset) / card.input.divisor
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def answers(card: Card, logits: NDArray[Any]) -> Answers:
    """Return ``(N, outputs)`` logits with the best classes that the card names."""
    best = [card.labels[card.output.best(row)[0]] for row in logits]
    return Answers(logits.astype(np.float32, copy=False), best)


@contextmanager
def served(path: Path) -> Iterator[Run]:
    """Run an artefact by this package's own source for it, as ``PREDICTOR_MODEL=path`` would.

    Raises:
        StartError: it cannot be loaded.
    """
    settings = Settings(model=str(path), device="cpu", max_batch_size=BATCH)
    model = loading.load_model(settings, available_cpus())

    def run(photos: Sequence[bytes]) -> Answers:
        pixels = [prepare(photo, model.card) for photo in photos]
        return answers(model.card, model.scorer.logits(pixels, model.scorer.lanes))

    yield run
