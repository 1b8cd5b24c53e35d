"""``predictor store compare``: what two models of a store answer to the same photos."""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from time import monotonic

from tqdm import tqdm

from predictor.cli import photos
from predictor.cli.evaluation import TOP, Comparison
from predictor.cli.report import render
from predictor.engine.admission import Process
from predictor.engine.classifier import Classifier
from predictor.errors import ModelError, PredictorError, StartError, StoreError
from predictor.images.files import Finder
from predictor.models.truth import Truth
from predictor.settings import Settings
from predictor.store import layout
from predictor.store.wanted import Entry

Photo = tuple[str, int | None]  # its file, and the index of its class if that is known

CHUNK = 32  # photos for one model, before the other gets them: both meet the same busy machine


def compare(store: Path, options: argparse.Namespace) -> int:
    """Compare two models, and print and write the report. Return the exit status."""
    if options.html:
        open(options.html, "a").close()  # if it cannot be written, stop before reading the photos
    names = [options.first, options.second]
    pair = _load(store, names)
    comparison, finder = Comparison(*(one.require_model().labels for one in pair)), Finder()
    found = _photos(options.photos, comparison, finder)
    chunks = iter(lambda: list(islice(found, CHUNK)), [])
    for chunk in tqdm(chunks, unit=f" x {CHUNK} photos", disable=None):
        _add(comparison, pair, chunk)
    if summary := finder.summary():
        print(summary, file=sys.stderr)
    if not comparison.both.photos:
        return photos.fail(f"No photo of {options.photos} can be classified.")
    values = {"comparison": comparison, "names": names, "pair": pair, "source": options.photos}
    print(render("comparison.txt", pair[0], **values), end="")
    if options.html:
        page = render("comparison.html", pair[0], **values)
        Path(options.html).write_text(page, "utf-8", "backslashreplace")
    return 1 if comparison.failed else 0


def _load(store: Path, names: list[str]) -> list[Classifier]:
    settings = Settings.from_env(os.environ | {"PREDICTOR_STORE": str(store)})
    settings, pair = replace(settings, request_timeout_s=photos.A_DAY), []
    process = Process(settings)
    there = {
        f"{name}/{version}": Entry(name, version, folder, "")
        for name, folders in layout.versions(store).items()
        for version, folder in folders.items()
    }
    for name in names:
        if name not in there:
            raise StoreError(f"{name} is not in {store}, which has {', '.join(there) or 'none'}.")
        pair.append(Classifier(layout.settings_of(there[name], settings), process=process))
        pair[-1].start()
        if pair[-1].loading.result().card.output.threshold is not None:
            raise ModelError(f"{name} answers with several labels, not with one class.")
    return pair


def _photos(source: str, comparison: Comparison, finder: Finder) -> Iterator[Photo]:
    try:
        return Truth(Path(source), comparison.labels).photos(finder)
    except StartError as error:
        print(f"The right classes are not known, only the answers. {error}", file=sys.stderr)
        return ((file, None) for file in finder.find([source]))


def _add(comparison: Comparison, pair: list[Classifier], chunk: list[Photo]) -> None:
    """Classify photos by both models. They begin in turn: the first reads the files from disk."""
    outcomes: list[list[photos.Outcome]] = [[], []]
    for side in (0, 1) if comparison.both.photos // CHUNK % 2 else (1, 0):
        began, work = monotonic(), partial(photos.classify, pair[side], TOP)
        results = photos.in_parallel([file for file, _ in chunk], work, pair[side])
        outcomes[side] = [outcome for _, outcome in results]
        comparison.seconds[side] += monotonic() - began
    for (file, truth), first, second in zip(chunk, *outcomes, strict=True):
        if isinstance(first, PredictorError) or isinstance(second, PredictorError):
            comparison.failed += 1
            error = first if isinstance(first, PredictorError) else second
            tqdm.write(f"{file}: {error}", sys.stderr)
        else:
            comparison.add(file, truth, first, second)
