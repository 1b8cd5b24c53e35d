"""What the commands that read photos share: the model, many photos at once, the exit status."""

import io
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from predictor.engine.classifier import Classifier
from predictor.engine.ranking import Prediction
from predictor.errors import PredictorError, StartError
from predictor.settings import DEVELOPMENT, Settings, unquoted
from predictor.store.folder import default_model

A_DAY = 86_400  # seconds, for any photo: on the command line no client waits
# What shells report for a program that SIGINT (Ctrl-C) or SIGPIPE ("| head") has ended.
INTERRUPTED, PIPE_CLOSED = 130, 141

Item = TypeVar("Item")
Result = TypeVar("Result")
Outcome = list[Prediction] | PredictorError


def exit_status(command: Callable[[], int], hint: str = "") -> int:
    """Run a command and return its exit status, see docs/api.md. Print ``hint`` after Ctrl-C."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # the locale may lack letters of a file name
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = command()
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # "| head" has ended; Python's signal module documents this
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.dup2(nowhere, sys.stderr.fileno())  # "2>&1 | head"
        return PIPE_CLOSED
    except KeyboardInterrupt:
        print(f"Interrupted. {hint}".rstrip(), file=sys.stderr)
        return INTERRUPTED
    except StartError as error:
        return fail(str(error))
    except OSError as error:
        return fail(f"The results cannot be written: {error.strerror}.")


def fail(message: str) -> int:
    """Print why the command cannot run, and return its exit status."""
    print(message, file=sys.stderr)
    return 2


def settings() -> Settings:
    """Return the settings; if PREDICTOR_MODEL is not set, with development's defaults.

    Raises:
        SettingsError: a setting is not valid.
    """
    defaults = {} if unquoted(os.environ.get("PREDICTOR_MODEL", "")) else DEVELOPMENT
    return Settings.from_env(defaults | os.environ)


def load(cpus: int | None = None) -> Classifier | None:
    """Return a classifier with its model, which is the default model of a store.

    None if it cannot be loaded; the log, or a line on standard error, says why. ``cpus`` is the
    number of processors to use; None: all that this process has.

    Raises:
        SettingsError: a setting is not valid.
    """
    own = settings()
    try:
        own = default_model(own)
    except StartError as error:
        print(error, file=sys.stderr)
        return None
    classifier = Classifier(replace(own, request_timeout_s=A_DAY, cpus=cpus))
    classifier.start()
    try:
        loaded = classifier.loading.result()
    except PredictorError:
        return None
    if loaded.info.notice:
        print(f"NOTE: {loaded.info.notice}", file=sys.stderr)
    return classifier


def in_parallel(
    items: Iterable[Item], work: Callable[[Item], Result], classifier: Classifier
) -> Iterator[tuple[Item, Result]]:
    """Call ``work`` with as many items at once as the classifier needs; yield results in order."""
    # Enough callers to fill the next batch while other batches run, but at most the queue's length.
    model = classifier.require_model().scorer
    callers = min((model.lanes + 1) * model.max_batch_size, classifier.settings.max_queue)
    pool = ThreadPoolExecutor(callers)
    ahead: deque[tuple[Item, Future[Result]]] = deque()  # few, so that memory does not grow
    try:
        for item in items:
            ahead.append((item, pool.submit(work, item)))
            if len(ahead) > 2 * callers:  # a slow photo does not stop the others at once
                first, future = ahead.popleft()
                yield first, future.result()
        for first, future in ahead:
            yield first, future.result()
    finally:  # even if the program that reads the output has ended
        pool.shutdown(cancel_futures=True)


def classify(classifier: Classifier, top_k: int | None, name: str) -> Outcome:
    """Return a photo's best classes, or its error. A photo that fails does not stop the others."""
    try:
        return classifier.classify([read(name)], top_k)[0]
    except PredictorError as error:
        return error


def read(name: str) -> bytes:
    """Return the bytes of a file, or for ``-`` of standard input; or raise PredictorError."""
    try:
        if name == "-":
            return sys.stdin.buffer.read()
        if Path(name).is_char_device():  # such as /dev/zero, which has no end
            raise ValueError("it is a device")
        with open(name, "rb") as file:  # Path("") would be the current folder
            return file.read()
    except (OSError, ValueError) as error:  # ValueError: a zero byte, as in a list in UTF-16
        reason = getattr(error, "strerror", error)
        raise PredictorError(f"The file cannot be read: {reason}.") from error
