"""The resources that all models of one process share, admission slots among them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from predictor.engine.cpus import available_cpus
from predictor.errors import Overloaded, ServiceError
from predictor.settings import Settings


class Slots:
    """Limits how many requests are in progress at once. Any thread may use it."""

    def __init__(
        self, count: int, holders: str = "requests", error: type[ServiceError] = Overloaded
    ) -> None:
        """Create ``count`` free slots for ``holders``; ``error`` is raised when all are held."""
        self.count, self._holders, self._error = count, holders, error
        self._held = 0
        self._changed = threading.Condition()
        self._idle_since = float("-inf")  # idle from the start

    @property
    def held(self) -> int:
        """Number of requests in progress."""
        return self._held

    @contextmanager
    def hold(self, retry_after_s: Callable[[], float | None] = lambda: None) -> Iterator[None]:
        """Hold one slot for the duration of the block; raise the error if none is free.

        ``retry_after_s`` is called for the error: the seconds after which the client should retry.
        """
        with self._changed:
            if self._held >= self.count:
                limit = f"{self.count} {self._holders} in progress"
                raise self._error(
                    f"The server is at its limit of {limit}. Retry later.", retry_after_s()
                )
            self._held += 1
        try:
            yield
        finally:
            with self._changed:
                self._held -= 1
                if self._held == 0:
                    self._idle_since = monotonic()
                    self._changed.notify_all()

    def wait_until_idle(self, seconds: float, timeout_s: float) -> bool:
        """Wait until no slot has been held for ``seconds``; return False after ``timeout_s``."""
        deadline = monotonic() + timeout_s
        with self._changed:
            while True:
                now = monotonic()
                idle_at = self._idle_since + seconds
                if self._held == 0 and idle_at <= now:
                    return True
                if now >= deadline:
                    return False
                wake_at = deadline if self._held else min(idle_at, deadline)
                self._changed.wait(wake_at - now)


class Process:
    """The processors, decoders and admission slots of this process.

    Attributes:
        cpus: number of processors for the models.
        slots: admission slots for requests; explanations have their own.
        decoders: limits how many images are decoded at once, because decoding competes with
            the models for the processors, and a decoded photo is large.
        draining: whether the process is shutting down and should get no more requests.
    """

    def __init__(self, settings: Settings) -> None:
        """Read the limits from the settings and from the machine."""
        self.cpus = settings.torch_threads or available_cpus()
        self.slots = Slots(settings.max_in_flight)
        self.decoders = threading.BoundedSemaphore(available_cpus())
        self.draining = False
