"""``predictor classify photo.jpg folder/``: classify photos without a server."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path

from tqdm import tqdm

from predictor.cli import photos, resume
from predictor.cli.output import CSV_HEADER, csv_rows, json_line, table
from predictor.cli.photos import Outcome, fail
from predictor.errors import PredictorError
from predictor.images.files import Finder, paths_in

AHEAD = 1000  # names that decide how wide the table's first column is

Write = Callable[[str], None]


def run(options: argparse.Namespace) -> int:
    """Classify what the options name. Return the exit status."""
    hint = "With --output, --resume continues the run."
    return photos.exit_status(partial(_run, options), hint)


def _run(options: argparse.Namespace) -> int:
    suffix = Path(options.output or "").suffix[1:].lower()
    form = options.format or (suffix if suffix in ("csv", "jsonl") else "table")
    if options.top_k is not None and options.top_k < 1:
        return fail(f"--top-k is {options.top_k}; it must be at least 1.")
    finder = Finder()
    try:
        earlier = _earlier_results(options, form)
        names = _names(options, finder, earlier)
        first = list(islice(names, AHEAD))
    except ValueError as error:
        return fail(str(error))
    if not first and not earlier.names:
        return fail(f"No image files found in the given paths. {finder.summary()}".rstrip())
    with _output(options.output, earlier) as write:
        if (classifier := photos.load()) is None:
            return 2
        if form == "csv" and not earlier.size:
            write(f"{CSV_HEADER}\n")
        width = max(map(len, first), default=0)
        formats: dict[str, Callable[[str, Outcome], str]] = {
            "csv": csv_rows,
            "jsonl": json_line,
            "table": partial(table, width),
        }
        # A list may come from a pipe, which cannot be read twice.
        count = sys.stderr.isatty() and not options.files_from
        total = sum(1 for _ in _names(options, Finder(), earlier)) if count else None
        failed = earlier.failed
        classify = partial(photos.classify, classifier, options.top_k)
        outcomes = photos.in_parallel(chain(first, names), classify, classifier)
        for name, outcome in tqdm(outcomes, None, total, False, unit="photo", disable=None):
            failed += isinstance(outcome, PredictorError)
            write(formats[form](name, outcome))
    if summary := finder.summary():
        print(summary, file=sys.stderr)
    return 1 if failed else 0


def _earlier_results(options: argparse.Namespace, form: str) -> resume.Earlier:
    """Return the results to continue; none without ``--resume``.

    Raises:
        ValueError: the options contradict each other or the file of results.
    """
    path = Path(options.output or "")
    if not options.resume:
        if path.is_file() and path.stat().st_size:
            raise ValueError(f"{path} exists. Add --resume to continue it, or delete it.")
        return resume.Earlier()
    if not options.output or form == "table":
        raise ValueError("--resume needs --output with a name that ends in .csv or .jsonl.")
    try:
        return resume.read(path, form)
    except ValueError as error:
        raise ValueError(f"{path} cannot be continued: {error}") from error


def _names(options: argparse.Namespace, finder: Finder, earlier: resume.Earlier) -> Iterator[str]:
    """Yield the photos that have no result yet."""
    if not options.paths and not options.files_from:
        raise ValueError("Name photos or folders, or a list of them with --files-from.")
    if options.files_from == "-" and "-" in options.paths:
        raise ValueError("Standard input is either a photo or a list of files.")
    listed = paths_in(options.files_from) if options.files_from else ()
    names = finder.find(chain(options.paths, listed))
    return (name for name in names if resume.as_written(name) not in earlier.names)


@contextmanager
def _output(name: str | None, earlier: resume.Earlier) -> Iterator[Write]:
    """Yield a function that writes to a file, after its earlier results; None: standard output."""
    if name is None:  # tqdm.write prints without breaking the progress bar
        yield partial(tqdm.write, end="")
        return
    # Each photo's lines are written at once, so that a broken run can be continued.
    with open(name, "a", 1, "utf-8", "backslashreplace", "") as file:
        if Path(name).is_file():  # not /dev/null
            file.truncate(earlier.size)  # a result that is cut off
        yield partial(tqdm.write, file=file, end="")
