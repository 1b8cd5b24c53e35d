"""The inference threads of a process, and whose images they run next.

This module depends neither on torch nor on HTTP. The threads live as long as there is a batcher.
torch keeps a pool of workers for each thread that ever computed, so one thread per request would
leak memory.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from predictor.engine.call import Job
from predictor.errors import InferenceFailed

if TYPE_CHECKING:
    from predictor.engine.batching import Batcher

# While several models are in use, the others wait for a call of one at most for about this long,
# or for as long as some of their own items take. Without the second, a busy machine would make each
# call seem long and each batch small, and thereby lose most of its throughput.
SHARED_CALL_S, OWN_ITEMS = 0.5, 4
IN_USE_S = 60.0  # after its last call


@dataclass(slots=True, eq=False)
class Pass:
    """A running call of a batcher."""

    batcher: Batcher[Any, Any]
    jobs: list[Job[Any, Any]]
    lanes: int  # of the process
    own_lanes: int  # of those that the batcher would have alone
    part: float  # of the process
    expected_s: float  # seconds on all lanes
    began: float


class Lanes:
    """The processors of a process in equal parts, one thread for each. All batchers share them.

    There are as many lanes as the batcher with the most allows parallel calls. A batcher that
    allows fewer gets more lanes for each call.

    A single waiting item gets all lanes, for the shortest latency. Many waiting items are split
    into as many parallel calls as there are lanes, for the highest throughput: such calls do not
    wait for each other's threads.

    The batcher that has used the least time is next: start-time fair queueing (Goyal, Vin and
    Cheng, 1996), with the seconds that a call would take on all lanes as its length.
    """

    def __init__(self) -> None:
        """Create no lanes; the first batcher brings them."""
        self.changed = threading.Condition()  # guards the lanes and all their batchers; reentrant
        self.count = self._free = 0
        self.used_s = 0.0  # what the batcher that began last had used: the start for an idle one
        self._batchers: list[Batcher[Any, Any]] = []
        self._passes: dict[int, Pass] = {}  # by thread
        self._threads: list[threading.Thread] = []
        self._failed = False

    def add(self, batcher: Batcher[Any, Any]) -> None:
        """Let the items of a batcher run; start threads if it allows more calls than others."""
        with self.changed:
            self._batchers.append(batcher)
            while self.count < batcher.lanes:
                thread = threading.Thread(
                    target=self._serve, name=f"inference-{self.count}", daemon=True,
                    args=(self._threads,),
                )  # fmt: skip
                thread.start()  # before the next line: `alive` needs no lock
                self._threads.append(thread)
                self.count += 1
                self._free += 1

    def remove(self, batcher: Batcher[Any, Any]) -> None:
        """Begin no further call of a batcher, and wait for its running calls.

        The threads end with the last batcher.
        """
        ended = []
        with self.changed:
            if batcher in self._batchers:
                self._batchers.remove(batcher)
            self.changed.wait_for(lambda: not (self.alive and batcher.running))
            if not (self._batchers or self._passes):
                ended, self._threads = self._threads, []
                self.count = self._free = 0
                self.changed.notify_all()
        for thread in ended:
            thread.join()

    def abandon(self) -> None:
        """Fail all items, including those of a call that hangs, without waiting for that call."""
        running = [job for one in list(self._passes.values()) for job in one.jobs]
        self._fail(running, "The model hangs. Retry later.")

    def backlog_s(self, batcher: Batcher[Any, Any], items: int) -> float:
        """Estimate the seconds until so many items of a batcher are done.

        Until then, every other batcher gets at most as much time as this one.
        """
        with self.changed:
            own = items * batcher.cost.seconds
            others = (one for one in self._batchers if one is not batcher)
            waiting = sum(min(own, len(one.queue) * one.cost.seconds) for one in others)
            passes = self._passes.values()
            return own + waiting + sum(len(one.jobs) * one.batcher.cost.seconds for one in passes)

    @property
    def alive(self) -> bool:
        """Whether no inference thread has failed."""
        return not self._failed and all(thread.is_alive() for thread in self._threads)

    @property
    def busy_s(self) -> float:
        """Seconds since the oldest running call began; 0 if no call is running."""
        since = min((one.began for one in list(self._passes.values())), default=None)
        return 0.0 if since is None else monotonic() - since

    def _serve(self, threads: list[threading.Thread]) -> None:
        try:
            while running := self._next(threads):
                running.batcher.run(running)
                self._end(running)
                del running  # frees the pixels, and the model, before the thread waits
        except BaseException:  # or the items would wait for ever
            own = self._passes.pop(threading.get_ident(), None)
            self._fail(own.jobs if own else [], "The model has stopped.")
            raise

    def _next(self, threads: list[threading.Thread]) -> Pass | None:
        """Wait until a call may begin; return it, or None once these threads should end."""
        with self.changed:
            while threads is self._threads and not self._failed:
                begun, wait_s = self._begin() if self._free else (None, None)
                if begun is not None:
                    return begun
                self.changed.wait(wait_s)
        return None

    def _begin(self) -> tuple[Pass | None, float | None]:
        """Begin the next call; or return the seconds until one may begin, None: after a change."""
        ready, wait_s = [], None
        for one in self._batchers:
            if (one_s := one.seconds_to_wait()) == 0:
                ready.append(one)
            elif one_s is not None:
                wait_s = min(one_s, wait_s or one_s)
        if not ready:
            return None, wait_s
        batcher = min(ready, key=_used_s) if len(ready) > 1 else ready[0]
        least = self._least(batcher)
        if least > self._free:  # if others began meanwhile, it might wait for ever
            return None, None
        # The waiting items and the free lanes are divided evenly among the calls that can begin.
        waiting = len(batcher.queue)
        for one in ready:
            if one is not batcher and self._least(one) + least <= self._free:
                waiting += len(one.queue)
        calls = min(self._free // least, waiting)
        if (lanes := self._free // calls) > 1 and not self._is_first_idle():
            return None, None  # the first idle thread begins it
        return self._start(batcher, -(-waiting // calls), lanes), None

    def _is_first_idle(self) -> bool:
        """Return whether this thread is to begin a call on several lanes.

        torch keeps a pool of workers for each thread that ever computed on several processors.
        GNU's OpenMP lets them sleep between two operations once all pools together have more
        threads than processors. With two such threads, an image of EfficientNet-Lite0 takes 32 ms
        for one client, with one 23 ms (2 CPUs, November 2026).
        """
        idle = (one for one in self._threads if one.ident not in self._passes)
        return next(idle).ident == threading.get_ident()

    def _least(self, batcher: Batcher[Any, Any]) -> int:
        """Return the least number of lanes for a call, so that no more than allowed fit."""
        return -(-self.count // batcher.lanes)

    def _most(self, batcher: Batcher[Any, Any], lanes: int) -> int:
        """Return the maximum number of items in a call on these lanes."""
        since, others = monotonic() - IN_USE_S, {*self._batchers} - {batcher}
        items_s = [one.cost.seconds for one in others if one.queue or one.began > since]
        if not (batcher.cost.seconds and items_s):
            return batcher.max_batch_size
        seconds = max(SHARED_CALL_S * lanes / self.count, OWN_ITEMS * min(items_s))
        return max(1, min(int(seconds / batcher.cost.seconds), batcher.max_batch_size))

    def _start(self, batcher: Batcher[Any, Any], items: int, lanes: int) -> Pass:
        jobs = batcher.take(min(items, self._most(batcher, lanes), len(batcher.queue)))
        own_lanes, part = lanes * batcher.lanes // self.count, lanes / self.count
        expected_s = len(jobs) * batcher.cost.seconds
        begun = Pass(batcher, jobs, lanes, own_lanes, part, expected_s, monotonic())
        batcher.began = begun.began
        self._free -= lanes
        self.used_s = max(self.used_s, batcher.used_s)
        batcher.used_s += expected_s
        batcher.running += 1
        self._passes[threading.get_ident()] = begun
        if lanes > 1 and self._free:
            self.changed.notify_all()  # the next idle thread is the first now
        return begun

    def _end(self, ended: Pass) -> None:
        batcher = ended.batcher
        with self.changed:
            seconds = (monotonic() - ended.began) * ended.part
            batcher.cost.learn(seconds, len(ended.jobs))
            batcher.used_s += seconds - ended.expected_s
            batcher.running -= 1
            self._passes.pop(threading.get_ident(), None)
            self._free += ended.lanes
            self.changed.notify_all()

    def _fail(self, running: Iterable[Job[Any, Any]], sentence: str) -> None:
        """End all threads; fail the waiting items and these running ones."""
        with self.changed:
            self._failed = True
            waiting = [job for one in self._batchers for job in one.take(len(one.queue))]
            self.changed.notify_all()
        fail([*running, *waiting], sentence)


def _used_s(batcher: Batcher[Any, Any]) -> float:
    return batcher.used_s


def fail(jobs: Iterable[Job[Any, Any]], sentence: str) -> None:
    """Set InferenceFailed as the result of the jobs that have none."""
    for job in jobs:
        with suppress(InvalidStateError):  # done or cancelled in the meantime
            job.future.set_exception(InferenceFailed(sentence))
