"""Classify photos from the command line: ``python -m predictor photo.jpg folder/``.

The settings are the server's (``PREDICTOR_MODEL`` and so on). Exit status: 0 all classified,
1 some could not be read, 2 nothing could be done.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from predictor.engine.classifier import Classifier
from predictor.engine.ranking import Prediction, as_answer
from predictor.errors import PredictorError, SettingsError
from predictor.images.decoding import FORMATS
from predictor.settings import Settings

A_DAY = 86_400
Outcome = list[Prediction] | PredictorError
Writer = Callable[[str, Outcome], None]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    options = _parser().parse_args(arguments)
    names = [name for path in options.paths for name in _expand(path)]
    if not names:
        print("There is no photo in what was named.", file=sys.stderr)
        return 2
    try:
        settings = replace(Settings.from_env(), request_timeout_s=A_DAY)  # nobody hurries us
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    classifier = Classifier(settings)
    classifier.start()
    try:
        engine = classifier.loading.result()
    except PredictorError:
        return 2  # the log has said why
    if not 1 <= options.top_k <= len(engine.labels):
        print(f"--top-k can be 1 to {len(engine.labels)}.", file=sys.stderr)
        return 2
    if engine.info.notice:
        print(f"NOTE: {engine.info.notice}", file=sys.stderr)
    return _classify_all(names, classifier, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m predictor")
    parser.description = "Classify photos; the model is chosen by the PREDICTOR_ settings."
    parser.add_argument("paths", nargs="+", help="photos, folders of photos, or - for stdin")
    parser.add_argument("--top-k", type=int, default=1, help="classes to name (default: 1)")
    parser.add_argument("--format", choices=("table", "csv", "jsonl"), default="table")
    return parser


def _expand(path: str) -> Iterator[str]:
    """A folder's photos, by their endings, in order; anything else as it is."""
    if not Path(path).is_dir():
        yield path
        return
    Image.init()
    endings = {ending for ending, name in Image.EXTENSION.items() if name in FORMATS}
    photos = (p for p in Path(path).rglob("*") if p.suffix.lower() in endings and p.is_file())
    yield from map(str, sorted(photos))


def _classify_all(names: list[str], classifier: Classifier, options: argparse.Namespace) -> int:
    """Classify in parallel, write in order; one that fails does not stop the rest."""
    write = WRITERS[options.format](names)
    failed = 0
    # Enough callers for a batch to wait while others run, and never more than may wait.
    model = classifier.require_model().scorer
    callers = min((model.lanes + 1) * model.max_batch_size, classifier.settings.max_queue)
    pool = ThreadPoolExecutor(callers)
    try:
        outcomes = pool.map(partial(_classify, classifier, options.top_k), names)
        bar = tqdm(outcomes, total=len(names), unit="photo", disable=None, leave=False)
        for name, outcome in zip(names, bar, strict=True):
            failed += isinstance(outcome, PredictorError)
            write(name, outcome)
    finally:  # also when whoever reads the output has seen enough
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


def _table(names: list[str]) -> Writer:
    width = max(map(len, names))

    def write(name: str, outcome: Outcome) -> None:
        if isinstance(outcome, PredictorError):
            _print(f"{name:{width}}  {outcome}")
            return
        for rank, p in enumerate(outcome):
            shown = name if rank == 0 else ""
            _print(f"{shown:{width}}  {p.probability:6.1%}  {p.class_id}  {p.class_name}")

    return write


def _csv(_names: list[str]) -> Writer:
    columns = ["file", *Prediction.__dataclass_fields__, "error"]
    writer = csv.DictWriter(_Printed(), columns, lineterminator="\n")
    writer.writeheader()

    def write(name: str, outcome: Outcome) -> None:
        if isinstance(outcome, PredictorError):
            writer.writerow({"file": name, "error": outcome})
            return
        writer.writerows({"file": name, **asdict(prediction)} for prediction in outcome)

    return write


def _jsonl(_names: list[str]) -> Writer:
    def write(name: str, outcome: Outcome) -> None:
        if isinstance(outcome, PredictorError):
            answer: dict[str, Any] = {"error": str(outcome)}
        else:
            answer = as_answer(outcome, detailed=True)
        _print(json.dumps({"file": name, **answer}, ensure_ascii=False))

    return write


class _Printed:
    def write(self, text: str) -> None:
        _print(text, end="")


def _print(text: str, end: str = "\n") -> None:
    tqdm.write(text, file=sys.stdout, end=end)  # print() would write across the progress bar


WRITERS: dict[str, Callable[[list[str]], Writer]] = {"table": _table, "csv": _csv, "jsonl": _jsonl}

if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may be no text in this locale
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        sys.exit(main())
    except BrokenPipeError:  # "| head": as the manual of Python's signal module advises
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
