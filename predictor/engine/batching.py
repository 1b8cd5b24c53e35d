"""Many callers, one call: what waits together runs together.

Knows neither torch nor HTTP. Items are handed in by any thread and run by threads of the
batcher's own, which live as long as it does: torch keeps a pool of workers for each thread
that ever computed, so a thread a request would leak memory.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import Generic, TypeVar

from predictor.errors import ClientGone, DeadlineExceeded, InferenceFailed, Overloaded

Item = TypeVar("Item")
Result = TypeVar("Result")

# How much the last call counts in the running mean of what an item takes.
NEWEST = 0.2
# How soon it is noticed that a client has hung up.
POLL_S = 0.25


@dataclass(slots=True)
class Job(Generic[Item, Result]):
    """An item on its way, and where its result will appear."""

    item: Item
    deadline: float = inf  # by the monotonic clock; nobody waits for a result after it
    future: Future[Result] = field(default_factory=Future)
    arrived: float = field(default_factory=monotonic)


class Batcher(Generic[Item, Result]):
    """Runs ``infer`` on whatever waits, at most ``max_batch_size`` items in a call.

    The processors are dealt out in ``shares``. An item alone is given all of them, for the
    shortest wait; when many wait, they are split into as many calls as there are shares, side
    by side, because calls that do not wait for each other's threads make more of them.

    Args:
        infer: items and shares → as many results, in the same order. Any of the batcher's
            threads calls it, each at its own time.
        max_batch_size: most items in one call.
        max_queue: most items that wait; more are refused at once.
        max_delay_s: longest wait for company, from the oldest item's arrival.
        shares: most calls at once.
    """

    def __init__(
        self,
        infer: Callable[[list[Item], int], Iterable[Result]],
        *,
        max_batch_size: int,
        max_queue: int,
        max_delay_s: float = 0.0,
        shares: int = 1,
    ) -> None:
        """Start the inference threads, one a share."""
        self._infer = infer
        self._max_batch_size = max_batch_size
        self._max_queue = max_queue
        self._max_delay_s = max_delay_s
        self._shares = self._free = shares
        self._item_s = 0.0  # of all shares together, for one item; 0 before the first call
        self._waiting: deque[Job[Item, Result]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._busy_since: dict[int, float] = {}  # by thread
        self._running: dict[int, list[Job[Item, Result]]] = {}  # by thread
        self._threads = [
            threading.Thread(target=self._serve, name=f"inference-{number}", daemon=True)
            for number in range(shares)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, items: Sequence[Item], deadline: float = inf) -> list[Future[Result]]:
        """Queue the items, all of them or none; a future's ``cancel()`` takes one out again.

        Args:
            items: any number.
            deadline: by the monotonic clock; what cannot be done by then is not begun.

        Raises:
            Overloaded: there is no room for them, or too much is before them.
            InferenceFailed: an inference thread has ended.
        """
        jobs: list[Job[Item, Result]] = [Job(item, deadline) for item in items]
        with self._changed:
            if self._closed:
                raise InferenceFailed("The model has stopped; the service must be restarted.")
            if len(self._waiting) + len(jobs) > self._max_queue:
                self._waiting = deque(job for job in self._waiting if not job.future.cancelled())
            if len(self._waiting) + len(jobs) > self._max_queue:
                count, backlog_s = len(self._waiting), self._backlog_s()
                raise Overloaded(f"{count} images are waiting already; try again.", backlog_s)
            # Where nothing waits it is begun in any case, or one slow call could end all service.
            ready = monotonic() + self._backlog_s() + len(jobs) * self._item_s
            if self._waiting and ready > deadline:
                raise Overloaded("It would not be done in time; try again.", self._backlog_s())
            self._waiting.extend(jobs)
            self._changed.notify_all()
        return [job.future for job in jobs]

    def close(self) -> None:
        """Let the calls in work finish, fail what waits, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def abandon(self) -> None:
        """Fail everything, also what is in work: a call hangs, and nobody shall hang with it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            orphans = [*self._waiting, *(job for jobs in self._running.values() for job in jobs)]
            self._waiting.clear()
        _fail(orphans, "The model hangs; try again.")

    @property
    def backlog_s(self) -> float:
        """Seconds until all that waits and runs now is done, as far as recent calls tell."""
        with self._changed:
            return self._backlog_s()

    def _backlog_s(self) -> float:
        running = sum(map(len, self._running.values()))
        return (len(self._waiting) + running) * self._item_s

    @property
    def alive(self) -> bool:
        """Whether items handed in now will be run."""
        return not self._closed and all(thread.is_alive() for thread in self._threads)

    @property
    def waiting(self) -> int:
        """How many items wait, without those whose callers have left."""
        with self._changed:
            return sum(not job.future.cancelled() for job in self._waiting)

    @property
    def busy_s(self) -> float:
        """Seconds for which the longest call in work has been running; 0 when there is none."""
        since = min(list(self._busy_since.values()), default=None)
        return 0.0 if since is None else monotonic() - since

    def _serve(self) -> None:
        me = threading.get_ident()
        try:
            while taken := self._take():
                jobs, shares = taken
                began = self._busy_since[me] = monotonic()
                count = self._run(jobs, shares)
                del self._busy_since[me]
                with self._changed:
                    self._running.pop(me, None)
                    self._learn((monotonic() - began) * shares / self._shares, count)
                    self._free += shares
                    self._changed.notify_all()
                del taken, jobs  # not to be held until the next ones come
        finally:  # whatever ended the thread, nobody is left waiting for it
            with self._changed:
                self._closed = True
                self._changed.notify_all()
                orphans = [*self._waiting, *self._running.pop(me, [])]
                self._waiting.clear()
            _fail(orphans, "The model has stopped.")

    def _take(self) -> tuple[list[Job[Item, Result]], int] | None:
        """Wait for jobs and a share, then for company until full or out of time.

        Returns:
            The jobs of one call, and its shares; None when closed.
        """
        with self._changed:
            while not self._closed:
                patience = self._patience()
                if patience == 0:
                    return self._deal()
                self._changed.wait(patience)
        return None

    def _patience(self) -> float | None:
        """Seconds to wait before the next call; 0: it can begin; None: until something changes."""
        if not self._waiting or not self._free:
            return None
        if len(self._waiting) >= self._max_batch_size:
            return 0
        return max(0.0, self._waiting[0].arrived + self._max_delay_s - monotonic())

    def _deal(self) -> tuple[list[Job[Item, Result]], int]:
        """Split what waits evenly over the free shares, and take one part of both."""
        calls = min(self._free, len(self._waiting))
        size = min(self._max_batch_size, -(-len(self._waiting) // calls))
        shares = self._free // calls
        self._free -= shares
        return [self._waiting.popleft() for _ in range(size)], shares

    def _run(self, jobs: Sequence[Job[Item, Result]], shares: int) -> int:
        """Run the jobs whose callers still wait and will live to see the result; how many."""
        wanted = [job for job in jobs if job.future.set_running_or_notify_cancel()]
        late = [job for job in wanted if monotonic() + self._item_s > job.deadline]
        for job in late:
            job.future.set_exception(DeadlineExceeded("There is no time left; the server is busy."))
        wanted = [job for job in wanted if job not in late]
        with self._changed:
            self._running[threading.get_ident()] = wanted
            if late and not wanted:  # nothing is learnt, and one slow call would end all service
                self._item_s *= 1 - NEWEST
        if wanted:
            self._settle(wanted, shares)
        return len(wanted)

    def _learn(self, seconds: float, count: int) -> None:
        if count:
            newest = seconds / count
            self._item_s += (newest - self._item_s) * (NEWEST if self._item_s else 1.0)

    def _settle(self, jobs: Sequence[Job[Item, Result]], shares: int) -> None:
        """Give every job its result, or its own failure and nobody else's."""
        results: list[Result] | None = None
        try:
            results = list(self._infer([job.item for job in jobs], shares))
            if len(results) != len(jobs):
                raise ValueError(f"{len(jobs)} items gave {len(results)} results")
        except Exception as error:
            if len(jobs) == 1:
                with suppress(InvalidStateError):
                    jobs[0].future.set_exception(error)
                return
            results = None
        if results is None:
            # By halves, which is also the way out of a batch too large for the memory; and
            # out of the handler, since the error's traceback holds on to what the batch took.
            middle = len(jobs) // 2
            self._settle(jobs[:middle], shares)
            self._settle(jobs[middle:], shares)
            return
        for job, result in zip(jobs, results, strict=True):
            with suppress(InvalidStateError):  # abandoned meanwhile
                job.future.set_result(result)


def wait_for(future: Future[Result], deadline: float, has_left: Callable[[], bool]) -> None:
    """Wait until a future is done.

    Args:
        future: one of :meth:`Batcher.submit`'s.
        deadline: by the monotonic clock.
        has_left: whether the caller has gone; asked every :data:`POLL_S`.

    Raises:
        ClientGone: the caller has.
        DeadlineExceeded: it is not done in time.
    """
    while not future.done() and (left_s := deadline - monotonic()) > 0:
        wait([future], min(left_s, POLL_S))
        if not future.done() and has_left():
            raise ClientGone("The client has hung up.")
    if not future.done():
        raise DeadlineExceeded("No answer within the time allowed; the server is busy.")


def _fail(jobs: Iterable[Job[Item, Result]], sentence: str) -> None:
    for job in jobs:
        with suppress(InvalidStateError):  # it was done just now, or its caller has left
            job.future.set_exception(InferenceFailed(sentence))
