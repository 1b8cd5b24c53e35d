"""Batching: items that wait at the same time run in one forward pass.

This module depends neither on torch nor on HTTP. Any thread may submit items. They run on the
threads of :class:`predictor.engine.lanes.Lanes`.
"""

from bisect import bisect, insort
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import InvalidStateError
from contextlib import suppress
from math import inf
from operator import attrgetter
from time import monotonic
from typing import Generic, TypeVar

from predictor.engine.call import Job
from predictor.engine.lanes import Lanes, Pass, fail
from predictor.errors import DeadlineExceeded, InferenceFailed, Overloaded

Item = TypeVar("Item")
Result = TypeVar("Result")

# Each further item of a request lets items pass that other requests submit up to so many seconds
# later; after about 10, up to a quarter of a second more than the one before. So a request of 64
# images holds up a photo by one batch. With 0.1 s, 16 clients with 8 small images each made photos
# wait for 3 s; with one limit for all, 54 items fell due at once, and photos were refused.
GIVES_WAY_S, LESS_FROM_S, LESS_S = 1.0, 7.5, 0.25
EWMA_WEIGHT = 0.2  # weight of the newest call in the running mean of the seconds per item


class ItemCost:
    """Running mean of the seconds that one item takes. Its owner's lock guards it."""

    def __init__(self, seconds: float = 0.0) -> None:
        """Start at ``seconds``; 0 means that nothing has been measured."""
        self.seconds = seconds

    def learn(self, seconds: float, items: int) -> None:
        """Update the mean with a call that ran ``items`` items in ``seconds``."""
        if items:
            weight = EWMA_WEIGHT if self.seconds else 1.0
            self.seconds += (seconds / items - self.seconds) * weight

    def decay(self) -> None:
        """Lower an estimate that refused a whole call, or it might refuse all later calls."""
        self.seconds *= 1 - EWMA_WEIGHT


def _gives_way_s(number: int) -> float:
    """Return the seconds for which the item of this number in its request, from 0, gives way."""
    return min(number * GIVES_WAY_S, LESS_FROM_S + number * LESS_S)


class Batcher(Generic[Item, Result]):
    """Runs ``infer`` on waiting items, at most ``max_batch_size`` in a call.

    Args:
        shared: the inference threads, which other batchers may share.
        infer: takes items and a number of lanes, at most ``lanes``; returns one result per item,
            in the same order. Several threads may call it at once.
        max_batch_size: maximum number of items in one call.
        max_queue: maximum number of items that may run before a request of one, and before the
            last one of a request of so many. With fewer items, a request may be behind more of
            them: at most twice this number together with its own. Others are refused immediately.
        max_delay_s: maximum seconds that the oldest item waits for a batch to fill.
        lanes: maximum number of parallel calls.
        cost: estimate of the seconds per item on all lanes, used to refuse items that would miss
            their deadline.
    """

    def __init__(
        self,
        shared: Lanes,
        infer: Callable[[list[Item], int], Iterable[Result]],
        *,
        max_batch_size: int,
        max_queue: int,
        max_delay_s: float = 0.0,
        lanes: int = 1,
        cost: ItemCost | None = None,
    ) -> None:
        """Let the items run on the shared lanes until :meth:`close`."""
        self._shared, self._changed = shared, shared.changed
        self._infer = infer
        self._max_queue = max_queue
        self._max_delay_s = max_delay_s
        self._closed = False
        self.max_batch_size, self.lanes, self.cost = max_batch_size, lanes, cost or ItemCost()
        self.queue: list[Job[Item, Result]] = []  # in the order of their turns
        self.running = 0  # calls
        self.used_s = 0.0  # seconds on all lanes, see `Lanes`
        self.began = -inf  # the last call
        shared.add(self)

    def submit(self, items: Sequence[Item], deadline: float = inf) -> list[Job[Item, Result]]:
        """Queue all items or none; return their jobs. A job with a cancelled future will not run.

        An item that cannot finish by ``deadline`` (seconds on the monotonic clock) is not run.

        Raises:
            Overloaded: the queue is full, or the items could not finish before the deadline.
            InferenceFailed: the batcher is closed or an inference thread has ended.
        """
        jobs: list[Job[Item, Result]] = [Job(item, deadline) for item in items]
        for number, job in enumerate(jobs):
            job.turn = job.submitted + _gives_way_s(number)
        with self._changed:
            self.require_alive()
            self.check(len(jobs), deadline)
            if not self.queue:
                self.used_s = max(self.used_s, self._shared.used_s)  # idle time earns nothing
            for job in jobs:
                insort(self.queue, job, key=attrgetter("turn"))
            self._changed.notify_all()
        return jobs

    def check(self, items: int, deadline: float) -> None:
        """Raise Overloaded if the queue is full for so many items, or they would be too late.

        They must finish by ``deadline``. An empty queue always accepts: otherwise one slow call
        would make the estimate refuse every later request.
        """
        last, most = monotonic() + _gives_way_s(items - 1), self._max_queue
        if items > 1:  # or 3 clients with the largest lists would refuse all lists of 12
            most = 2 * self._max_queue - items
        with self._changed:
            if self._ahead(last) >= most:
                self.queue = [job for job in self.queue if not job.future.cancelled()]
            if (ahead := self._ahead(last)) >= most:
                detail = f"{ahead} images are waiting for the model. Retry later."
                raise Overloaded(detail, self.backlog_s)
            if self.queue and monotonic() + self._shared.backlog_s(self, ahead + items) > deadline:
                detail = "The request could not be answered in time. Retry later."
                raise Overloaded(detail, self.backlog_s)

    def _ahead(self, turn: float) -> int:
        """Return how many items run before one with this turn."""
        return bisect(self.queue, turn, key=attrgetter("turn"))

    def require_alive(self) -> None:
        """Raise InferenceFailed if the batcher is closed or an inference thread has ended.

        No thread survives a fork. A forked process should call this before it takes any lock, which
        a thread of its parent may have held.
        """
        if not self.alive:
            raise InferenceFailed("The model has stopped; this process cannot answer any more.")

    def close(self) -> None:
        """Wait for the running calls and fail the waiting items. Other batchers keep the lanes."""
        self._closed = True
        self._shared.remove(self)
        with self._changed:
            jobs = self.take(len(self.queue))
        fail(jobs, "The model has stopped.")

    @property
    def backlog_s(self) -> float:
        """Estimated seconds until all waiting and running items are done."""
        return self._shared.backlog_s(self, len(self.queue))

    @property
    def expected_s(self) -> float:
        """Estimated seconds until an item is done that is submitted alone now.

        Waiting items that give way to it do not count: with a slow model, a few requests of many
        images would refuse all photos, which come before them.
        """
        return self._shared.backlog_s(self, self._ahead(monotonic()) + 1)

    @property
    def alive(self) -> bool:
        """Whether an item submitted now will be run."""
        return not self._closed and self._shared.alive

    @property
    def waiting(self) -> int:
        """Number of waiting items, without cancelled ones."""
        with self._changed:
            return sum(not job.future.cancelled() for job in self.queue)

    def seconds_to_wait(self) -> float | None:
        """Return the seconds until a call may begin if lanes are free; None: wait for a change."""
        if not self.queue or self.running >= self.lanes:
            return None
        if len(self.queue) >= self.max_batch_size:
            return 0
        return max(0.0, self.queue[0].submitted + self._max_delay_s - monotonic())

    def take(self, items: int) -> list[Job[Item, Result]]:
        """Remove items from the queue and return them. The caller holds the lock."""
        taken, self.queue = self.queue[:items], self.queue[items:]
        return taken

    def run(self, begun: Pass) -> None:
        """Run the jobs that are not cancelled and can meet their deadline; keep only these."""
        kept = [job for job in begun.jobs if job.future.set_running_or_notify_cancel()]
        late = [job for job in kept if monotonic() + self.cost.seconds > job.deadline]
        for job in late:
            error = DeadlineExceeded("The request could not be answered in time. Retry later.")
            job.future.set_exception(error)
        begun.jobs = kept = [job for job in kept if job not in late] if late else kept
        if kept:
            self._resolve(kept, begun.own_lanes)
        elif late:
            with self._changed:
                self.cost.decay()

    def _resolve(self, jobs: Sequence[Job[Item, Result]], lanes: int) -> None:
        """Run the jobs and set their results. An item that fails does not affect the others."""
        results: list[Result] | None = None
        try:
            results = self._timed(jobs, lanes)
        except Exception as error:
            if len(jobs) == 1:
                with suppress(InvalidStateError):
                    jobs[0].future.set_exception(error)
                return
        if results is None:
            # Retry in halves: this isolates the bad item, and smaller batches fit into the memory.
            # Not inside `except`, because the traceback there keeps the batch in memory.
            middle = len(jobs) // 2
            self._resolve(jobs[:middle], lanes)
            self._resolve(jobs[middle:], lanes)
            return
        with suppress(InvalidStateError):  # abandoned in the meantime, with all its jobs
            for job, result in zip(jobs, results, strict=True):
                job.future.set_result(result)

    def _timed(self, jobs: Sequence[Job[Item, Result]], lanes: int) -> list[Result]:
        began = monotonic()
        for job in jobs:
            job.began = job.began or began
        results = list(self._infer([job.item for job in jobs], lanes))
        if len(results) != len(jobs):
            raise ValueError(f"{len(jobs)} items gave {len(results)} results")
        ended = monotonic()
        for job in jobs:
            job.ended = ended
        return results
