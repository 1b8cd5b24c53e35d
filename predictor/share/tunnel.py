"""What a provider gives, what it raises, and how long it may take."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")


class TunnelError(Exception):
    """There is no tunnel; the text is one sentence that says why, and what to do."""


class Missing(TunnelError):
    """There could be none: the program or the token that it needs is not here."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A way to the app.

    Attributes:
        url: the address at its other end.
        close: ends it.
        public: whether strangers can use it.
    """

    url: str
    close: Callable[[], object]
    public: bool = True


# Opens a tunnel to a local address like http://127.0.0.1:5000, with ngrok's token if there is
# one; raises TunnelError.
Provider = Callable[[str, str | None], Tunnel]


def within(
    seconds: float, call: Callable[[], Result], undo: Callable[[Result], object] | None = None
) -> Result:
    """The call's result, from a thread of its own.

    Not only for the time: a notebook's main thread runs an event loop, in which the ngrok SDK
    answers with a task that somebody should await.

    Args:
        seconds: how long to wait.
        call: what may take long, or for ever.
        undo: takes a result that came when nobody waited for it any more.

    Raises:
        TimeoutError: there was no result in time.
    """
    outcome: Future[Result] = Future()

    def work() -> None:
        try:
            result = call()
        except BaseException as error:  # a panic in Rust is no Exception
            kept = error if isinstance(error, Exception) else RuntimeError(str(error))
            with suppress(InvalidStateError):
                outcome.set_exception(kept)
            return
        try:
            outcome.set_result(result)
        except InvalidStateError:
            _take_back(result, undo)

    # The context tells a notebook to which cell a thread's output belongs.
    thread = threading.Thread(target=copy_context().run, args=(work,), daemon=True)
    try:
        thread.start()
    except RuntimeError:  # since Python 3.12 none is started once the interpreter ends
        return call()
    try:
        return outcome.result(seconds)
    except BaseException:
        if not outcome.cancel() and outcome.exception() is None:  # it came in this very moment
            _take_back(outcome.result(), undo)
        raise


def _take_back(result: Result, undo: Callable[[Result], object] | None) -> None:
    if undo is not None:
        with suppress(Exception):
            undo(result)
