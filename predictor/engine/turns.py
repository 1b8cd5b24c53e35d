"""Turns at a few decoders: first come, first served, one image at a time.

A request with several images goes to the end of the queue after each of them. So the photo of
another request waits for at most one image of each request before it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from predictor.engine.batching import ItemCost
from predictor.engine.call import POLL_S, Call
from predictor.errors import Overloaded


class Turns:
    """A queue for a number of decoders. Any thread may use it."""

    def __init__(self, decoders: int, most_s: float) -> None:
        """Create free decoders. While the wait is above ``most_s``, images are refused."""
        self._decoders = self._free = decoders
        self._most_s = most_s
        self._cost = ItemCost()  # of a turn
        self._lock = threading.Lock()  # guards all of the above
        self._waiting: deque[threading.Lock] = deque()  # released when their turn comes

    @property
    def waiting(self) -> int:
        """Number of images that wait for a decoder."""
        return len(self._waiting)

    @property
    def backlog_s(self) -> float:
        """Estimated seconds until the queue is empty, from the recent turns."""
        return self.waiting * self._cost.seconds / self._decoders

    @property
    def full(self) -> bool:
        """Whether a further image is refused, because it would wait for too long."""
        return self.backlog_s > self._most_s

    @contextmanager
    def take(self, call: Call) -> Iterator[None]:
        """Wait for a decoder and hold it for the block, which decodes one image.

        Raises:
            ClientGone: the client has closed its connection.
            DeadlineExceeded: there was no decoder before the deadline.
            Overloaded: the queue is too long.
        """
        call.check()
        if (turn := self._join()) is not None:
            self._wait(turn, call)
        began = monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._cost.learn(monotonic() - began, 1)
                self._pass_on()

    def _join(self) -> threading.Lock | None:
        """Take a free decoder and return None, or join the queue and return the turn."""
        with self._lock:
            if self._free:  # then the queue is empty
                self._free -= 1
                return None
            if self.full:
                detail = f"{self.waiting} images are waiting to be decoded. Retry later."
                raise Overloaded(detail, self.backlog_s)
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
            return turn

    def _wait(self, turn: threading.Lock, call: Call) -> None:
        try:
            while not turn.acquire(timeout=min(POLL_S, call.seconds_left)):
                call.check()
            call.check()
        except BaseException:
            with self._lock:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                else:  # the turn came in the meantime
                    self._pass_on()
            raise

    def _pass_on(self) -> None:
        """Give the decoder to the image that waits longest. The caller holds the lock."""
        if self._waiting:
            self._waiting.popleft().release()
        else:
            self._free += 1
