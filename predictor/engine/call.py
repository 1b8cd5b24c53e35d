"""The classes for a request and for its items in a queue, and helpers for results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from threading import TIMEOUT_MAX
from time import monotonic
from typing import Any, Generic, TypeVar, cast

from predictor.errors import ClientGone, DeadlineExceeded, PredictorError
from predictor.images.cost import Budget

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True)
class Timings:
    """Seconds that a request spent in each step; None for a step that it did not reach.

    For several images, ``decode`` is their sum, and ``queue`` and ``inference`` are the times of
    the image that ran last. The steps thus add up to the time that the client waited.
    """

    read: float | None = None  # reading the body from the client
    decode: float | None = None  # decoding and resizing, with the wait for a decoder
    queue: float | None = None  # waiting for a forward pass
    inference: float | None = None
    explain: float | None = None  # an explanation: queue, decoding and computation
    preview: float | None = None  # as ``decode``, for a request that is no prediction

    @contextmanager
    def measure(self, step: str) -> Iterator[None]:
        """Add the duration of the block to a step, even if the block raises."""
        began = monotonic()
        try:
            yield
        finally:
            setattr(self, step, (getattr(self, step) or 0.0) + monotonic() - began)

    def add_wait(self, jobs: Iterable[Job[Any, Any]]) -> None:
        """Split the wait for the model into ``queue`` and ``inference``.

        If the request was given up before the job began or ended, the open step counts until now.
        """
        last = max(jobs, key=lambda job: job.began or job.submitted, default=None)
        if last is None:
            return
        self.queue = (last.began or monotonic()) - last.submitted
        if last.began is not None:
            self.inference = (last.ended or monotonic()) - last.began

    def known(self) -> dict[str, float]:
        """Return the steps that the request reached, in order."""
        steps = ((step, getattr(self, step)) for step in self.__slots__)
        return {step: seconds for step, seconds in steps if seconds is not None}


@dataclass(slots=True)
class Call:
    """What a front end knows about a request, and what the engine records about it."""

    # In seconds on the monotonic clock. The engine replaces ``inf`` when it receives the call.
    deadline: float = inf
    left: Future[None] = field(default_factory=Future)  # done once the client has left
    # The engine fills in these:
    timings: Timings = field(default_factory=Timings)
    model: str = ""  # name and version of the model that the request is about
    version: str = ""
    class_ids: list[str] = field(default_factory=list)  # best class of each classified image
    budget: Budget = field(default_factory=Budget)  # for decoding its images

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline; 0 after it."""
        return max(0.0, self.deadline - monotonic())

    def check(self) -> None:
        """Raise ClientGone or DeadlineExceeded if the request is no longer worth any work."""
        if self.left.done():
            raise ClientGone("The client has closed its connection.")
        if not self.seconds_left:
            raise DeadlineExceeded(
                "The request took longer than the server allows. The server is busy; retry later."
            )

    def wait(self, future: Future[Result]) -> Result:
        """Wait for the result of a future and return it.

        Raises:
            ClientGone: the client has closed its connection.
            DeadlineExceeded: there was no result before the deadline.
            Exception: what the future raised.
        """
        while not future.done():
            self.check()
            ends: list[Future[Any]] = [future, self.left]
            wait(ends, min(self.seconds_left, TIMEOUT_MAX), FIRST_COMPLETED)
        return future.result()


@dataclass(slots=True, eq=False)  # items can be arrays, which have no single truth value
class Job(Generic[Item, Result]):
    """One submitted item, its future, and its times in seconds on the monotonic clock."""

    item: Item
    deadline: float = inf
    future: Future[Result] = field(default_factory=Future)
    submitted: float = field(default_factory=monotonic)
    turn: float = 0.0  # the item with the earliest turn runs first
    began: float | None = None  # when the first forward pass began; a failed batch runs again
    ended: float | None = None


def map_good(
    run: Callable[[list[Any]], Sequence[Result]], items: Iterable[Item | PredictorError]
) -> list[Result | PredictorError]:
    """Call ``run`` once with all items that are not errors. Every error keeps its position.

    ``run`` returns one result for each of these items, in the same order.
    """
    items = list(items)
    results = iter(run([item for item in items if not isinstance(item, PredictorError)]))
    return [item if isinstance(item, PredictorError) else next(results) for item in items]


def all_or_error(outcomes: Sequence[Result | PredictorError]) -> list[Result]:
    """Return the results, for protocols that cannot report an error for one of several images.

    Raises:
        PredictorError: the first error. With several images, its message says which image failed.
    """
    for number, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, PredictorError):
            if len(outcomes) > 1:
                outcome.args = (f"Image {number} of {len(outcomes)}: {outcome}",)
            raise outcome
    return cast(list[Result], list(outcomes))
