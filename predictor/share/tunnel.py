"""The interface of a provider: what it returns and raises, and a timeout for calling it."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
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
    """An open tunnel to the app."""

    url: str
    close: Callable[[], object]
    public: bool = True  # whether anyone can use the URL


# Opens a tunnel to a local URL, such as http://127.0.0.1:5000. Its second argument is the ngrok
# token, or None. Raises TunnelError.
Provider = Callable[[str, str | None], Tunnel]


def within(
    seconds: float, call: Callable[[], Result], undo: Callable[[Result], object] = lambda late: None
) -> Result:
    """Run ``call`` in a thread. Return its result, or raise its error or TimeoutError.

    If the result arrives too late, pass it to ``undo``. The thread also has a second purpose: a
    notebook's main thread runs an event loop, and the ngrok SDK would return a task there instead
    of a result.
    """
    outcome: Future[Result] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except Exception as error:
            outcome.set_exception(error)
        except BaseException as error:  # a Rust panic is not an Exception
            outcome.set_exception(RuntimeError(str(error)))

    def take_back(late: Future[Result]) -> None:
        if late.exception() is None:
            with suppress(Exception):
                undo(late.result())

    # With the context, a notebook shows the thread's output below the right cell.
    thread = threading.Thread(target=copy_context().run, args=(work,), daemon=True)
    try:
        thread.start()
    except RuntimeError:  # since Python 3.12, no thread can start while the interpreter ends
        return call()
    try:
        return outcome.result(seconds)
    except BaseException:
        outcome.add_done_callback(take_back)
        raise
