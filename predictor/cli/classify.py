"""``predictor classify photo.jpg folder/``: classify photos without a server."""

import argparse
import io
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from predictor.cli.output import WRITERS, Outcome
from predictor.engine.classifier import Classifier
from predictor.errors import PredictorError, SettingsError
from predictor.images.decoding import file_suffixes
from predictor.settings import DEVELOPMENT, Settings

A_DAY = 86_400  # seconds, for any photo: on the command line no client waits


def run(options: argparse.Namespace) -> int:
    """Classify ``options.paths``. Return 0, or 1 if some photos failed, or 2 if none was tried."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # the locale may lack letters of a file name
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _run(options)
    except BrokenPipeError:  # "| head" has ended; Python's signal module documents this
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(options: argparse.Namespace) -> int:
    names = [name for path in options.paths for name in _expand(path)]
    if not names:
        return _fail("No image files found in the given paths.")
    # Use development's defaults if PREDICTOR_MODEL is not set.
    defaults = {} if os.environ.get("PREDICTOR_MODEL", "").strip() else DEVELOPMENT
    try:
        settings = Settings.from_env(defaults | os.environ)
    except SettingsError as error:
        return _fail(str(error))
    classifier = Classifier(replace(settings, request_timeout_s=A_DAY))
    classifier.start()
    try:
        loaded = classifier.loading.result()
    except PredictorError:
        return 2  # the loader has logged the reason
    classes = len(loaded.labels)
    if not 1 <= options.top_k <= classes:
        return _fail(f"--top-k is {options.top_k}; it must be between 1 and {classes}.")
    if loaded.info.notice:
        print(f"NOTE: {loaded.info.notice}", file=sys.stderr)
    return _classify_all(names, classifier, options)


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


def _expand(path: str) -> list[str]:
    """Return a folder's image files, sorted and chosen by suffix. Return another path as is."""
    if not Path(path).is_dir():
        return [path]
    suffixes = file_suffixes()
    photos = (p for p in Path(path).rglob("*") if p.suffix.lower() in suffixes and p.is_file())
    return [str(photo) for photo in sorted(photos)]


def _classify_all(names: list[str], classifier: Classifier, options: argparse.Namespace) -> int:
    """Classify in parallel and write in order. A photo that fails does not stop the others."""
    write = WRITERS[options.format](names)
    failed = 0
    # Enough callers to fill the next batch while other batches run, but at most the queue's length.
    model = classifier.require_model().scorer
    callers = min((model.lanes + 1) * model.max_batch_size, classifier.settings.max_queue)
    pool = ThreadPoolExecutor(callers)
    try:
        outcomes = pool.map(partial(_classify, classifier, options.top_k), names)
        bar = tqdm(outcomes, total=len(names), unit="photo", disable=None, leave=False)
        for name, outcome in zip(names, bar, strict=True):
            failed += isinstance(outcome, PredictorError)
            write(name, outcome)
    finally:  # even if the program that reads the output has ended
        pool.shutdown(cancel_futures=True)
    return 1 if failed else 0


def _classify(classifier: Classifier, top_k: int, name: str) -> Outcome:
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return classifier.classify([data], top_k)[0]
    except OSError as error:
        return PredictorError(f"The file cannot be read: {error.strerror}.")
    except PredictorError as error:
        return error
