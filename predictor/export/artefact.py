"""What the runtimes of the artefacts share: photos are prepared by the artefact's own card."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from predictor.engine.cpus import available_cpus
from predictor.errors import ExportError
from predictor.export import carried
from predictor.export.carried import prepare
from predictor.images.files import Finder
from predictor.models import loading
from predictor.models.card import Card
from predictor.models.labels import Label
from predictor.models.outputs import Logits
from predictor.settings import Settings

BATCH = 8  # photos at once in the proof, besides each photo alone


class Answers(NamedTuple):
    """What a runtime answers to N photos."""

    # ``(N, outputs)`` float32: logits, or ``(N, classes)`` logarithms of probabilities. NaN for
    # those that the runtime does not mention.
    logits: Logits
    # The best class of each photo as the runtime names it: its id and its name, or "" for what it
    # does not name.
    best: Sequence[Label]


Photos = list[tuple[str, bytes]]  # names and encoded photos
Run = Callable[[Sequence[bytes]], Answers]  # encoded photos → what the runtime answers


def read(paths: Iterable[str | Path]) -> Photos:
    """Read photos, and the photos in folders and their sub-folders.

    Raises:
        ExportError: a file cannot be read, or a folder has no photo.
    """
    photos: Photos = []
    for path in map(str, paths):
        if not (files := [*Finder().find([path])]):
            raise ExportError(f"{path} has no photos. Name a photo, or a folder with photos.")
        try:
            photos += [(file, Path(file).read_bytes()) for file in files]
        except OSError as error:
            raise ExportError(f"{error.filename} cannot be read: {error.strerror}.") from error
    return photos


def program(name: str, advice: str) -> str:
    """Return a program's path. Raise ExportError if it is not on the PATH."""
    if (path := shutil.which(name)) is None:
        raise ExportError(f"{name} is not on the PATH. {advice}")
    return path


@contextmanager
def quiet() -> Iterator[None]:
    """Torch's exporters may be used in here: they warn about themselves, and say much."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def batch(photos: Sequence[bytes], card: Card) -> NDArray[np.float32]:
    """Decode, resize and normalise N photos: ``(N, C, height, width)`` float32, contiguous."""
    return carried.batch([prepare(photo, card) for photo in photos], card)


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
