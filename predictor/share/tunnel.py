"""The interface of a provider: what it returns, what it raises, how long it may take."""

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
    """No tunnel could be opened. The text says why and what to do, without a full stop."""


class Missing(TunnelError):
    """The program, package, token or notebook that the provider needs is missing."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """An open tunnel to the app.

    Attributes:
        url: the URL that leads through the tunnel.
        close: closes the tunnel.
        public: whether anyone can use the URL.
    """

    url: str
    close: Callable[[], object]
    public: bool = True


# Opens a tunnel to a local URL, such as http://127.0.0.1:5000. Its second argument is the ngrok
# token, or None. Raises TunnelError.
Provider = Callable[[str, str | None], Tunnel]


def within(
    seconds: float, call: Callable[[], Result], undo: Callable[[Result], object] | None = None
) -> Result:
    """Run ``call`` in a thread and return its result, or raise its error.

    The thread is needed for more than the timeout: in a notebook's main thread an event loop is
    running, where the ngrok SDK returns a task instead of a result.

    Args:
        seconds: how long to wait.
        call: a function that may take long or never return.
        undo: called with a result that arrives too late.

    Raises:
        TimeoutError: ``call`` did not return in time.
    """
    outcome: Future[Result] = Future()

    def work() -> None:
        try:
            result = call()
        except BaseException as error:  # a Rust panic is not an Exception
            kept = error if isinstance(error, Exception) else RuntimeError(str(error))
            with suppress(InvalidStateError):
                outcome.set_exception(kept)
            return
        try:
            outcome.set_result(result)
        except InvalidStateError:
            _take_back(result, undo)

    # With the context, a notebook shows the thread's output below the right cell.
    thread = threading.Thread(target=copy_context().run, args=(work,), daemon=True)
    try:
        thread.start()
    except RuntimeError:  # since Python 3.12, no thread can start while the interpreter ends
        return call()
    try:
        return outcome.result(seconds)
    except BaseException:
        if not outcome.cancel() and outcome.exception() is None:  # the result has just arrived
            _take_back(outcome.result(), undo)
        raise


def _take_back(result: Result, undo: Callable[[Result], object] | None) -> None:
    if undo is not None:
        with suppress(Exception):
            undo(result)
