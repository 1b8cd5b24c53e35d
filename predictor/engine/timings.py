"""Where the seconds of a request went."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(slots=True)
class Timings:
    """Seconds of one request, by a monotonic clock; None for a step it did not come to.

    Of several images, ``decode`` is the sum, and ``queue`` and ``inference`` are those of the
    image that was run last: the steps add up to what the caller waited for.
    """

    read: float | None = None  # the body, from the client
    decode: float | None = None  # to pixels of the model's size, with the wait for a decoder
    queue: float | None = None  # until a forward pass took it
    inference: float | None = None
    explain: float | None = None  # an explanation from its queue to its end, decoding included

    @contextmanager
    def measure(self, step: str) -> Iterator[None]:
        """Add the time that the block takes to a step, also when it fails."""
        began = monotonic()
        try:
            yield
        finally:
            setattr(self, step, (getattr(self, step) or 0.0) + monotonic() - began)

    def settle(self, passengers: Iterable[Passenger[Item]]) -> None:
        """Split the wait for the model, also one that was given up."""
        last = max(passengers, key=lambda one: one.began or one.submitted, default=None)
        if last is None:
            return
        self.queue = (last.began or monotonic()) - last.submitted
        if last.began is not None:
            self.inference = (last.ended or monotonic()) - last.began

    def known(self) -> dict[str, float]:
        """The steps it came to, in order."""
        return {step: seconds for step, seconds in asdict(self).items() if seconds is not None}


@dataclass(slots=True)
class Passenger(Generic[Item]):
    """An item on its way through the batcher, and when it was where."""

    item: Item
    submitted: float
    began: float | None = None  # its first forward pass: a failed one is repeated in halves
    ended: float | None = None
