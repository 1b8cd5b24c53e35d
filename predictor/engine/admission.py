"""Places for requests: how many are in work, and when none has been for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from predictor.errors import Overloaded


class Places:
    """So many requests may be in work at once; any thread may ask."""

    def __init__(self, count: int) -> None:
        """All places are free, and have been for ever."""
        self.count = count
        self._taken = 0
        self._changed = threading.Condition()
        self._quiet_since = float("-inf")

    @property
    def taken(self) -> int:
        """How many requests are in work."""
        return self._taken

    @contextmanager
    def take(self, retry_after_s: Callable[[], float | None] = lambda: None) -> Iterator[None]:
        """Hold a place for the block.

        Args:
            retry_after_s: asked, if none is free, when to come again.

        Raises:
            Overloaded: all places are taken.
        """
        with self._changed:
            if self._taken >= self.count:
                raise Overloaded(
                    f"All {self.count} places are taken; try again.",
                    retry_after_s(),
                )
            self._taken += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken -= 1
                if self._taken == 0:
                    self._quiet_since = monotonic()
                    self._changed.notify_all()

    def wait_for_quiet(self, seconds: float, timeout_s: float) -> bool:
        """Wait until no place has been taken for some seconds; False if that never was so."""
        deadline = monotonic() + timeout_s
        with self._changed:
            while True:
                now = monotonic()
                quiet_at = self._quiet_since + seconds
                if self._taken == 0 and quiet_at <= now:
                    return True
                if now >= deadline:
                    return False
                wake_at = deadline if self._taken else min(quiet_at, deadline)
                self._changed.wait(wake_at - now)
