"""Poll with a deadline: for tests that wait for another thread or process."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

Value = TypeVar("Value")


def wait_until(condition: Callable[[], Value], timeout_s: float = 60) -> Value:
    """Call ``condition`` until it returns a true value, and return that value.

    Raises:
        AssertionError: it returned none within ``timeout_s`` seconds.
    """
    deadline = monotonic() + timeout_s
    while not (value := condition()):
        assert monotonic() < deadline, f"not true within {timeout_s} s"
        sleep(0.01)
    return value
