"""Resources that all models of one process share, such as admission slots."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from predictor.engine.cpus import available_cpus
from predictor.engine.decoders import Decoders
from predictor.engine.lanes import Lanes
from predictor.engine.turns import Turns
from predictor.errors import ExplainerBusy, Overloaded, ServiceError
from predictor.settings import Settings

# Of several models, one gets no further slot once it holds this many times as many as are free:
# a quarter stays for the others, and a part for a third one while two are flooded (dynamic
# thresholds, Choudhury and Hahne, 1998). The rest, 48 of 64, is enough to fill all batches.
TIMES_FREE = 3
LARGE_S = 4.0  # of parsing, for which bodies with very many numbers may wait, in all


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
        self.is_shared = False  # whether several models are served
        self._held_by = Counter[str]()  # by model
        self._changed = threading.Condition()
        self.used_at = float("-inf")  # when the model last ran for a holder

    @property
    def free(self) -> int:
        """Number of free slots."""
        return self.count - self.held

    def check(self, model: str = "", size: float = 0.0) -> None:
        """Raise the error if no slot is free for a request of this model.

        ``size``: the request's images as a share of the most that one may have. As large a share of
        half of the slots must be free.
        """
        free = self.free
        is_large = size * self.count / 2 > free
        if free <= 0 or is_large or (self.is_shared and self._held_by[model] >= TIMES_FREE * free):
            limit = f"{self.held} {self._holders} in progress"
            raise self._error(
                f"The server is at its limit of {limit}. Retry later.", self.retry_after_s()
            )

    def take(self, model: str = "", size: float = 0.0) -> None:
        """Take one slot; raise the error if no slot is free. For ``size`` see :meth:`check`."""
        with self._changed:
            self.check(model, size)
            self.held += 1
            self._held_by[model] += 1

    def release(self, model: str = "") -> None:
        """Give back one slot."""
        with self._changed:
            self.held -= 1
            self._held_by[model] -= 1
            if self.held == 0:
                self._changed.notify_all()

    @contextmanager
    def hold(self, model: str = "", size: float = 0.0) -> Iterator[None]:
        """Hold one slot for the duration of the block, as :meth:`take` does."""
        self.take(model, size)
        try:
            yield
        finally:
            self.release(model)

    def wait_until_idle(self, seconds: float, timeout_s: float) -> bool:
        """Return True once no slot is held, and the model has not run for a holder for ``seconds``.

        Return False after ``timeout_s``. Requests that are refused leave the model idle.
        """
        deadline = monotonic() + timeout_s
        with self._changed:
            while True:
                now = monotonic()
                idle_at = self.used_at + seconds
                if self.held == 0 and idle_at <= now:
                    return True
                if now >= deadline:
                    return False
                wake_at = deadline if self.held else min(idle_at, deadline)
                self._changed.wait(wake_at - now)


class Process:
    """The processors, inference threads, decoders and admission slots of this process."""

    def __init__(self, settings: Settings) -> None:
        cpus = settings.cpus or available_cpus()
        self.cpus = settings.torch_threads or cpus  # for the models
        self.slots = Slots(settings.max_in_flight)  # for predictions, not for explanations
        # Else a client's 64 requests with 64 images each, of 76 bytes, would refuse all photos.
        most = max(1, settings.max_in_flight // 2)
        self.several = Slots(most, "requests with several images")  # they hold a slot, too
        self.explanations = Slots(settings.max_explanations, "explanations", ExplainerBusy)
        self.lanes = Lanes()  # that run the models
        # Decoding competes with the models for processors, and decoded photos are large.
        self.decoders = Decoders(cpus, settings)
        # One, because parsing holds Python's lock: two end no sooner, and make others wait. Also,
        # the numbers of 20 MB of JSON take 250 MB until they are a tensor. Bodies that wait hold
        # slots, too: 64 clients with a gzip of 1.1 kB refused 9 of 10 photos.
        self.parsers = Turns(1, settings.request_timeout_s / 2, most)
        self.large_parsers = Turns(1, LARGE_S, most)
        self.draining = False  # whether the process is shutting down and should get no requests

    def share_slots(self, several_models: bool) -> None:
        """Leave slots of each kind to the other models, or not, if only one is served."""
        for slots in (self.slots, self.several, self.explanations):
            slots.is_shared = several_models
