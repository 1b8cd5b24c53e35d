"""Resources that all models of one process share, such as admission slots."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from predictor.engine.cpus import available_cpus
from predictor.engine.decoders import Decoders
from predictor.engine.lanes import Lanes
from predictor.errors import ExplainerBusy, Overloaded, ServiceError
from predictor.settings import Settings


class Slots:
    """Limits how many requests are in progress at once. Any thread may use it."""

    def __init__(
        self, count: int, holders: str = "requests", error: type[ServiceError] = Overloaded
    ) -> None:
        """Create ``count`` free slots for ``holders``; ``error`` is raised when all are held."""
        self.count, self._holders, self._error = count, holders, error
        # For the error: the seconds after which a client should retry.
        self.retry_after_s: Callable[[], float | None] = lambda: None
        self.held = 0  # number of requests in progress
        self._changed = threading.Condition()
        self._idle_since = float("-inf")  # idle from the start

    def check(self) -> None:
        """Raise the error if no slot is free."""
        if self.held >= self.count:
            limit = f"{self.count} {self._holders} in progress"
            raise self._error(
                f"The server is at its limit of {limit}. Retry later.", self.retry_after_s()
            )

    def take(self) -> None:
        """Take one slot; raise the error if no slot is free."""
        with self._changed:
            self.check()
            self.held += 1

    def release(self) -> None:
        """Give back one slot."""
        with self._changed:
            self.held -= 1
            if self.held == 0:
                self._idle_since = monotonic()
                self._changed.notify_all()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold one slot for the duration of the block; raise the error if no slot is free."""
        self.take()
        try:
            yield
        finally:
            self.release()

    def wait_until_idle(self, seconds: float, timeout_s: float) -> bool:
        """Return True once no slot has been held for ``seconds``, or False after ``timeout_s``."""
        deadline = monotonic() + timeout_s
        with self._changed:
            while True:
                now = monotonic()
                idle_at = self._idle_since + seconds
                if self.held == 0 and idle_at <= now:
                    return True
                if now >= deadline:
                    return False
                wake_at = deadline if self.held else min(idle_at, deadline)
                self._changed.wait(wake_at - now)


class Process:
    """The processors, inference threads, decoders and admission slots of this process."""

    def __init__(self, settings: Settings) -> None:
        self.cpus = settings.torch_threads or available_cpus()  # for the models
        self.slots = Slots(settings.max_in_flight)  # for predictions, not for explanations
        self.explanations = Slots(settings.max_explanations, "explanations", ExplainerBusy)
        self.lanes = Lanes()  # that run the models
        # Decoding competes with the models for processors, and decoded photos are large.
        self.decoders = Decoders(available_cpus(), settings)
        self.draining = False  # whether the process is shutting down and should get no requests
