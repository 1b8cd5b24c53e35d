"""Batching: items that wait at the same time run in one forward pass.

This module depends neither on torch nor on HTTP. Any thread may submit items. The items run on the
batcher's own threads, which live as long as the batcher. torch keeps a pool of workers for each
thread that ever computed, so one thread per request would leak memory.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import InvalidStateError
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Generic, TypeVar

from predictor.engine.call import Job
from predictor.errors import DeadlineExceeded, InferenceFailed, Overloaded

Item = TypeVar("Item")
Result = TypeVar("Result")

EWMA_WEIGHT = 0.2  # weight of the newest call in the running mean of the seconds per item


class ItemCost:
    """Running mean of the seconds that one item takes. The batcher's lock guards it."""

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


class Batcher(Generic[Item, Result]):
    """Runs ``infer`` on waiting items, at most ``max_batch_size`` in a call.

    The processors are divided into ``lanes``. A single waiting item gets all lanes, for the
    shortest latency. Many waiting items are split into as many parallel calls as there are lanes,
    for the highest throughput: such calls do not wait for each other's threads.

    Args:
        infer: takes items and a number of lanes; returns one result per item, in the same order.
            Several of the batcher's threads may call it at once.
        max_batch_size: maximum number of items in one call.
        max_queue: maximum number of waiting items; further items are refused immediately.
        max_delay_s: maximum seconds that the oldest item waits for a batch to fill.
        lanes: maximum number of parallel calls.
        cost: estimate of the seconds per item, used to refuse items that would miss their deadline.
    """

    def __init__(
        self,
        infer: Callable[[list[Item], int], Iterable[Result]],
        *,
        max_batch_size: int,
        max_queue: int,
        max_delay_s: float = 0.0,
        lanes: int = 1,
        cost: ItemCost | None = None,
    ) -> None:
        """Start the inference threads, one per lane."""
        self._infer = infer
        self._max_batch_size = max_batch_size
        self._max_queue = max_queue
        self._max_delay_s = max_delay_s
        self._lanes = self._free = lanes
        self._cost = cost or ItemCost()
        self._waiting: deque[Job[Item, Result]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._busy_since: dict[int, float] = {}  # by thread
        self._running: dict[int, list[Job[Item, Result]]] = {}  # by thread
        self._threads = [
            threading.Thread(target=self._serve, name=f"inference-{number}", daemon=True)
            for number in range(lanes)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, items: Sequence[Item], deadline: float = inf) -> list[Job[Item, Result]]:
        """Queue all items or none; return their jobs. A job with a cancelled future will not run.

        An item that cannot finish by ``deadline`` (seconds on the monotonic clock) is not run.

        Raises:
            Overloaded: the queue is full, or the items could not finish before the deadline.
            InferenceFailed: the batcher is closed or an inference thread has ended.
        """
        jobs: list[Job[Item, Result]] = [Job(item, deadline) for item in items]
        with self._changed:
            self.require_alive()
            if len(self._waiting) + len(jobs) > self._max_queue:
                self._waiting = deque(job for job in self._waiting if not job.future.cancelled())
            if len(self._waiting) + len(jobs) > self._max_queue:
                detail = f"{len(self._waiting)} images are waiting for the model. Retry later."
                raise Overloaded(detail, self.backlog_s)
            # An empty queue always accepts: otherwise one slow call would make the estimate
            # refuse every later request.
            ready = monotonic() + self.backlog_s + len(jobs) * self._cost.seconds
            if self._waiting and ready > deadline:
                raise Overloaded(
                    "The request could not be answered in time. Retry later.", self.backlog_s
                )
            self._waiting.extend(jobs)
            self._changed.notify_all()
        return jobs

    def require_alive(self) -> None:
        """Raise InferenceFailed if the batcher is closed or an inference thread has ended.

        No thread survives a fork. A forked process should call this before it takes any lock, which
        a thread of its parent may have held.
        """
        if not self.alive:
            raise InferenceFailed("The model has stopped; this process cannot answer any more.")

    def close(self) -> None:
        """Wait for the running calls, fail the waiting items, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def abandon(self) -> None:
        """Fail all items, including those of a call that hangs, without waiting for that call."""
        self._fail([*self._running], "The model hangs. Retry later.")

    @property
    def backlog_s(self) -> float:
        """Estimated seconds until all waiting and running items are done."""
        with self._changed:  # reentrant
            running = sum(map(len, self._running.values()))
            return (len(self._waiting) + running) * self._cost.seconds

    @property
    def alive(self) -> bool:
        """Whether an item submitted now will be run."""
        return not self._closed and all(thread.is_alive() for thread in self._threads)

    @property
    def waiting(self) -> int:
        """Number of waiting items, without cancelled ones."""
        with self._changed:
            return sum(not job.future.cancelled() for job in self._waiting)

    @property
    def busy_s(self) -> float:
        """Seconds since the oldest running call began; 0 if no call is running."""
        since = min(list(self._busy_since.values()), default=None)
        return 0.0 if since is None else monotonic() - since

    def _serve(self) -> None:
        me = threading.get_ident()
        try:
            while taken := self._take():
                jobs, lanes = taken
                began = self._busy_since[me] = monotonic()
                count = self._run(jobs, lanes)
                del self._busy_since[me]
                with self._changed:
                    self._running.pop(me, None)
                    self._cost.learn((monotonic() - began) * lanes / self._lanes, count)
                    self._free += lanes
                    self._changed.notify_all()
                del taken, jobs  # frees the pixels before the thread waits for the next items
        finally:  # fail the items however the thread ended, or they would wait for ever
            self._fail([me], "The model has stopped.")

    def _fail(self, threads: Iterable[int], sentence: str) -> None:
        """Close the batcher; fail the waiting items and the items that ``threads`` are running."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            jobs = [*self._waiting, *(job for t in threads for job in self._running.get(t, ()))]
            self._waiting.clear()
        for job in jobs:
            with suppress(InvalidStateError):  # done or cancelled in the meantime
                job.future.set_exception(InferenceFailed(sentence))

    def _take(self) -> tuple[list[Job[Item, Result]], int] | None:
        """Wait until a call may begin; return its jobs and lanes, or None once closed."""
        with self._changed:
            while not self._closed:
                wait_s = self._seconds_to_wait()
                if wait_s == 0:
                    return self._split_off()
                self._changed.wait(wait_s)
        return None

    def _seconds_to_wait(self) -> float | None:
        """Return the seconds until a call may begin; None: wait for a change."""
        if not self._waiting or not self._free:
            return None
        if len(self._waiting) >= self._max_batch_size:
            return 0
        return max(0.0, self._waiting[0].submitted + self._max_delay_s - monotonic())

    def _split_off(self) -> tuple[list[Job[Item, Result]], int]:
        """Take the jobs and lanes for the next call."""
        # The waiting jobs and the free lanes are divided evenly among the calls that can start now.
        calls = min(self._free, len(self._waiting))
        size = min(self._max_batch_size, -(-len(self._waiting) // calls))
        lanes = self._free // calls
        self._free -= lanes
        return [self._waiting.popleft() for _ in range(size)], lanes

    def _run(self, jobs: Sequence[Job[Item, Result]], lanes: int) -> int:
        """Run the jobs that are not cancelled and can meet their deadline; return their number."""
        kept = [job for job in jobs if job.future.set_running_or_notify_cancel()]
        late = [job for job in kept if monotonic() + self._cost.seconds > job.deadline]
        for job in late:
            error = DeadlineExceeded("The request could not be answered in time. Retry later.")
            job.future.set_exception(error)
        kept = [job for job in kept if job not in late]
        with self._changed:
            self._running[threading.get_ident()] = kept
            if late and not kept:
                self._cost.decay()
        if kept:
            self._resolve(kept, lanes)
        return len(kept)

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
        for job, result in zip(jobs, results, strict=True):
            with suppress(InvalidStateError):  # abandoned in the meantime
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
