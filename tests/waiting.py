"""Polling with a deadline, where a test has to wait for another thread or process."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

Value = TypeVar("Value")


def wait_until(condition: Callable[[], Value], timeout_s: float = 60) -> Value:
    """The condition's first value that is true; AssertionError when there is none in time."""
    deadline = monotonic() + timeout_s
    while not (value := condition()):
        assert monotonic() < deadline, f"not so within {timeout_s} s"
        sleep(0.01)
    return value
