"""An item in the batcher's queue, and an estimate of the seconds that an item takes."""

from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import Generic, TypeVar

from predictor.engine.call import Call
from predictor.errors import ClientGone, DeadlineExceeded

Item = TypeVar("Item")
Result = TypeVar("Result")

EWMA_WEIGHT = 0.2  # of the newest call, in the running mean of the seconds per item
POLL_S = 0.25  # seconds between two checks whether a client has left


@dataclass(slots=True)
class Job(Generic[Item, Result]):
    """One submitted item, its future, and its times in seconds on the monotonic clock."""

    item: Item
    deadline: float = inf
    future: Future[Result] = field(default_factory=Future)
    submitted: float = field(default_factory=monotonic)
    began: float | None = None  # of the first forward pass; a failed batch is repeated in halves
    ended: float | None = None

    def wait(self, call: Call) -> Result:
        """Wait for the result.

        Args:
            call: the wait ends at its deadline, or when its client has left.

        Raises:
            ClientGone: the client has closed its connection.
            DeadlineExceeded: there was no result before the deadline.
            Exception: what the batcher's ``infer`` raised for this item.
        """
        while not self.future.done() and (left_s := call.seconds_left) > 0:
            wait([self.future], min(left_s, POLL_S))
            if not self.future.done() and call.has_left():
                raise ClientGone("The client has closed its connection.")
        if not self.future.done():
            raise DeadlineExceeded(
                "The request took longer than the server allows. The server is busy; retry later."
            )
        return self.future.result()


class ItemCost:
    """Running mean of the seconds that one item takes. The batcher's lock guards it."""

    def __init__(self, seconds: float = 0.0) -> None:
        """Start at ``seconds``; 0 means that nothing has been measured."""
        self.seconds = seconds

    def learn(self, seconds: float, items: int) -> None:
        """Take in a call that ran ``items`` items in ``seconds``."""
        if items:
            weight = EWMA_WEIGHT if self.seconds else 1.0
            self.seconds += (seconds / items - self.seconds) * weight

    def decay(self) -> None:
        """Lower the estimate, after it has kept all items of a call from running.

        Otherwise one slow call could make the estimate refuse every later request.
        """
        self.seconds *= 1 - EWMA_WEIGHT
