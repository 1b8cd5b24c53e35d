"""``predictor classify photo.jpg folder/``: classify photos without a server."""

import argparse
import io
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

from tqdm import tqdm

from predictor.cli import resume
from predictor.cli.files import Finder, paths_in
from predictor.cli.output import CSV_HEADER, Outcome, csv_rows, json_line, table
from predictor.engine.classifier import Classifier
from predictor.errors import PredictorError, SettingsError
from predictor.settings import DEVELOPMENT, Settings, unquoted

A_DAY = 86_400  # seconds, for any photo: on the command line no client waits
AHEAD = 1000  # names that decide how wide the table's first column is
# What shells report for a program that SIGINT (Ctrl-C) or SIGPIPE ("| head") has ended.
INTERRUPTED, PIPE_CLOSED = 130, 141

Write = Callable[[str], None]


def run(options: argparse.Namespace) -> int:
    """Classify what the options name. Return the exit status, which ``--help`` explains."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # the locale may lack letters of a file name
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = _run(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # "| head" has ended; Python's signal module documents this
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.dup2(nowhere, sys.stderr.fileno())  # "2>&1 | head"
        return PIPE_CLOSED
    except KeyboardInterrupt:
        print("Interrupted. With --output, --resume continues the run.", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        return _fail(f"The results cannot be written: {error.strerror}.")


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


def _run(options: argparse.Namespace) -> int:
    suffix = Path(options.output or "").suffix[1:].lower()
    form = options.format or (suffix if suffix in ("csv", "jsonl") else "table")
    finder = Finder()
    try:
        earlier = _earlier_results(options, form)
        names = _names(options, finder, earlier)
        first = list(islice(names, AHEAD))
    except ValueError as error:
        return _fail(str(error))
    if not first and not earlier.names:
        return _fail(f"No image files found in the given paths. {finder.summary()}".rstrip())
    with _output(options.output, earlier) as write:
        if (classifier := _load(options.top_k)) is None:
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
        outcomes = _classify_all(chain(first, names), classifier, options.top_k)
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
        raise ValueError(f"{path} was not written by this command: {error}") from error


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


def _load(top_k: int | None) -> Classifier | None:
    """Load the model. If that fails, say why and return None."""
    # Use development's defaults if PREDICTOR_MODEL is not set.
    defaults = {} if unquoted(os.environ.get("PREDICTOR_MODEL", "")) else DEVELOPMENT
    try:
        settings = Settings.from_env(defaults | os.environ)
    except SettingsError as error:
        _fail(str(error))
        return None
    classifier = Classifier(replace(settings, request_timeout_s=A_DAY))
    classifier.start()
    try:
        loaded = classifier.loading.result()
    except PredictorError:
        return None  # the loader has logged the reason
    if top_k is not None and top_k < 1:
        _fail(f"--top-k is {top_k}; it must be at least 1.")
        return None
    if loaded.info.notice:
        print(f"NOTE: {loaded.info.notice}", file=sys.stderr)
    return classifier


def _classify_all(
    names: Iterable[str], classifier: Classifier, top_k: int | None
) -> Iterator[tuple[str, Outcome]]:
    """Classify in parallel and yield in order. A photo that fails does not stop the others."""
    # Enough callers to fill the next batch while other batches run, but at most the queue's length.
    model = classifier.require_model().scorer
    callers = min((model.lanes + 1) * model.max_batch_size, classifier.settings.max_queue)
    pool = ThreadPoolExecutor(callers)
    ahead: deque[tuple[str, Future[Outcome]]] = deque()  # few, so that memory does not grow
    try:
        for name in names:
            ahead.append((name, pool.submit(_classify, classifier, top_k, name)))
            if len(ahead) > 2 * callers:  # a slow photo does not stop the others at once
                first, future = ahead.popleft()
                yield first, future.result()
        for first, future in ahead:
            yield first, future.result()
    finally:  # even if the program that reads the output has ended
        pool.shutdown(cancel_futures=True)


def _classify(classifier: Classifier, top_k: int | None, name: str) -> Outcome:
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return classifier.classify([data], top_k)[0]
    except (OSError, ValueError) as error:  # ValueError: a zero byte, as in a list in UTF-16
        return PredictorError(f"The file cannot be read: {getattr(error, 'strerror', error)}.")
    except PredictorError as error:
        return error
