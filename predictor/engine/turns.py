"""Turns at a number of decoders or parsers: a queue that is fair to those who wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from operator import attrgetter
from time import monotonic

from predictor.engine.batching import ItemCost
from predictor.engine.call import Call
from predictor.errors import Overloaded
from predictor.images.cost import IMAGE_S

# Bytes per second that decoding is expected to take; photos have 2 to 50 times as many. An image
# with fewer waits so many times longer while others wait, too. Otherwise 20 clients with flat WebP
# files of 0.09 s make the photos of others take 1.0 to 1.5 s, and with a TIFF of 7 kB their large
# photos 10 s.
USUAL_BYTES = 1_000_000


@dataclass(slots=True, eq=False)
class Turn:
    """An image that waits for a decoder.

    Attributes:
        due: seconds on the monotonic clock. The image that is due first is next.
        expected_s: the seconds that decoding takes at least, as far as they are known.
        paid: bytes of the image per expected second.
        ended: done when the image need not wait any more.
        refused: whether it gave way to another image, instead of getting a decoder.
    """

    due: float
    expected_s: float
    paid: float
    ended: Future[None] = field(default_factory=Future)
    refused: bool = False


class Turns:
    """A queue for a number of decoders. Any thread may use it.

    If it is full, the waiting image whose client sent least for what it costs gives way. Otherwise
    18 clients with a 34-byte WebP refuse the large photos of all others.
    """

    def __init__(self, decoders: int, most_s: float, most: float = inf) -> None:
        """Create free decoders. Images are refused behind ``most`` others or ``most_s`` of work."""
        self._decoders = self._free = decoders
        self._most_s, self._most = most_s, most
        self._cost = ItemCost()  # of a turn
        self._waiting: list[Turn] = []
        self._lock = threading.Lock()  # guards all of the above

    @property
    def waiting(self) -> int:
        """Number of images that wait for a decoder."""
        return len(self._waiting)

    @property
    def backlog_s(self) -> float:
        """Estimated seconds until the queue is empty, from the recent turns.

        Or from what the images are expected to take, if that is more: dear images that failed at
        once make the recent turns short.
        """
        expected_s = sum(turn.expected_s for turn in self._waiting.copy())
        return max(self.waiting * self._cost.seconds, expected_s) / self._decoders

    @property
    def full(self) -> bool:
        """Whether a further image is refused: it would wait for too long, or behind too many."""
        return self.backlog_s > self._most_s or self.waiting >= self._most

    @contextmanager
    def take(self, call: Call, expected_s: float = 0.0, size: float = 0.0) -> Iterator[None]:
        """Wait for a decoder and hold it for the block, which decodes one image.

        ``expected_s``: the seconds that this takes at least, as far as they are known.
        ``size``: of the image, in bytes that were sent.

        Raises:
            ClientGone: the client has closed its connection.
            DeadlineExceeded: there was no decoder before the deadline.
            Overloaded: the queue is too long.
        """
        call.check()
        if (turn := self._join(expected_s, size)) is not None:
            self._wait(turn, call)
        began = monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._cost.learn(monotonic() - began, 1)
                self._pass_on()

    def _join(self, expected_s: float, size: float = 0.0) -> Turn | None:
        """Take a free decoder and return None, or join the queue and return the turn."""
        with self._lock:
            if self._free:  # then the queue is empty
                self._free -= 1
                return None
            paid = max(size, 1) / max(expected_s, IMAGE_S)
            patience_s = expected_s * USUAL_BYTES / paid
            turn = Turn(monotonic() + patience_s, expected_s, paid)
            if self.full:
                self._make_room(turn)
            self._waiting.append(turn)
            return turn

    def _make_room(self, newcomer: Turn) -> None:
        """Refuse the waiting image that paid least, or the newcomer. The caller holds the lock."""
        least = min(self._waiting, key=attrgetter("paid"), default=newcomer)
        if newcomer.paid <= least.paid:
            raise self._overloaded()
        self._waiting.remove(least)
        least.refused = True
        least.ended.set_result(None)

    def _overloaded(self) -> Overloaded:
        detail = f"{self.waiting} requests are waiting for their turn. Retry later."
        return Overloaded(detail, self.backlog_s)

    def _wait(self, turn: Turn, call: Call) -> None:
        try:
            call.wait(turn.ended)
            if turn.refused:
                raise self._overloaded()
            call.check()
        except BaseException:
            with self._lock:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                elif not turn.refused:  # it got a decoder in the meantime
                    self._pass_on()
            raise

    def _pass_on(self) -> None:
        """Give the decoder to the image whose turn is due first. The caller holds the lock."""
        if self._waiting:
            turn = min(self._waiting, key=attrgetter("due"))
            self._waiting.remove(turn)
            turn.ended.set_result(None)
        else:
            self._free += 1
