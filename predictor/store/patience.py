"""How long a process that starts waits for the models of its store."""

from __future__ import annotations

import threading
from collections.abc import Callable

# While a process starts and no load ends for so long, it does not wait for the rest. Then all
# loads have begun (folder.TURN_S), and a process that it replaces answers yet (worker.HANDOVER_S).
STALLED_S = 60.0


class Patience:
    """Ends when it has not been renewed for ``STALLED_S`` seconds.

    Attributes:
        is_over: whether it has ended.
    """

    def __init__(self, ends: Callable[[Callable[[], None]], object]) -> None:
        """``ends`` gets the function that ends it, to call it in the thread of the store."""
        self._ends, self.is_over = ends, False
        self._timer: threading.Timer | None = None

    def renew(self) -> None:
        """Wait from now on: a load has begun or ended."""
        self.stop()
        self._timer = threading.Timer(STALLED_S, self._ends, [self._end])
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        """Wait no longer."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self.is_over = True
