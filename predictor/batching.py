"""Many callers, one call: what waits together runs together.

Knows neither torch nor HTTP. Items are handed in by any thread and run by threads of the
batcher's own, which live as long as it does: torch keeps a pool of workers for each thread
that ever computed, so a thread a request would leak memory.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
from typing import Generic, TypeVar

from predictor.errors import InferenceFailed, Overloaded

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True)
class Job(Generic[Item, Result]):
    """An item on its way, and where its result will appear."""

    item: Item
    future: Future[Result] = field(default_factory=Future)
    arrived: float = field(default_factory=monotonic)


class Batcher(Generic[Item, Result]):
    """Runs ``infer`` on whatever waits, at most ``max_batch_size`` items at once.

    Args:
        infer: items → as many results, in the same order. It is called by one thread.
        max_batch_size: most items in one call.
        max_queue: most items that wait; more are refused at once.
        max_delay_s: longest wait for company, from the oldest item's arrival.
        initializer: called once by the inference thread before its first batch.
    """

    def __init__(
        self,
        infer: Callable[[list[Item]], Iterable[Result]],
        *,
        max_batch_size: int,
        max_queue: int,
        max_delay_s: float = 0.0,
        initializer: Callable[[], object] = lambda: None,
    ) -> None:
        """Start the inference thread."""
        self._infer = infer
        self._max_batch_size = max_batch_size
        self._max_queue = max_queue
        self._max_delay_s = max_delay_s
        self._initializer = initializer
        self._waiting: deque[Job[Item, Result]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._serve, name="inference", daemon=True)
        self._thread.start()

    def submit(self, items: Sequence[Item]) -> list[Future[Result]]:
        """Queue the items, all of them or none; a future's ``cancel()`` takes one out again.

        Raises:
            Overloaded: there is no room for them.
            InferenceFailed: the inference thread has ended.
        """
        jobs: list[Job[Item, Result]] = [Job(item) for item in items]
        with self._changed:
            if self._closed:
                raise InferenceFailed("The model has stopped; the service must be restarted.")
            if len(self._waiting) + len(jobs) > self._max_queue:
                self._waiting = deque(job for job in self._waiting if not job.future.cancelled())
            if len(self._waiting) + len(jobs) > self._max_queue:
                raise Overloaded(f"{len(self._waiting)} images are waiting already; try again.")
            self._waiting.extend(jobs)
            self._changed.notify()
        return [job.future for job in jobs]

    def close(self) -> None:
        """Let the batch in work finish, fail what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether items handed in now will be run."""
        return self._thread.is_alive() and not self._closed

    @property
    def busy_s(self) -> float:
        """Seconds for which the call in work has been running; 0 when none is."""
        since = self._busy_since
        return 0.0 if since is None else monotonic() - since

    def _serve(self) -> None:
        try:
            self._initializer()
            while jobs := self._take():
                self._busy_since = monotonic()
                self._run(jobs)
                self._busy_since = None
        finally:  # whatever ended the thread, nobody is left waiting for it
            with self._changed:
                self._closed = True
            for job in self._waiting:
                if job.future.set_running_or_notify_cancel():
                    job.future.set_exception(InferenceFailed("The model has stopped."))

    def _take(self) -> list[Job[Item, Result]]:
        """Wait for a job, then for company until full or out of time; none when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            while not self._closed and 0 < len(self._waiting) < self._max_batch_size:
                # Looked up anew: the oldest may have been cancelled while we slept.
                patience = self._waiting[0].arrived + self._max_delay_s - monotonic()
                if patience <= 0 or not self._changed.wait(patience):
                    break
            if self._closed:
                return []
            size = min(len(self._waiting), self._max_batch_size)
            return [self._waiting.popleft() for _ in range(size)]

    def _run(self, jobs: Sequence[Job[Item, Result]]) -> None:
        """Run the jobs whose callers still wait."""
        wanted = [job for job in jobs if job.future.set_running_or_notify_cancel()]
        if wanted:
            self._settle(wanted)

    def _settle(self, jobs: Sequence[Job[Item, Result]]) -> None:
        """Give every job its result, or its own failure and nobody else's."""
        results: list[Result] | None = None
        try:
            results = list(self._infer([job.item for job in jobs]))
            if len(results) != len(jobs):
                raise ValueError(f"{len(jobs)} items gave {len(results)} results")
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            results = None
        if results is None:
            # By halves, which is also the way out of a batch too large for the memory; and
            # out of the handler, since the error's traceback holds on to what the batch took.
            middle = len(jobs) // 2
            self._settle(jobs[:middle])
            self._settle(jobs[middle:])
            return
        for job, result in zip(jobs, results, strict=True):
            job.future.set_result(result)
