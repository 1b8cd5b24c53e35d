"""The decoders of a process: requests take turns, one image at a time, and pay for each.

A request with several images goes to the end of the queue after each of them. So the photo of
another request waits for at most one image of each request before it, and for none that costs much
more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from predictor.engine.batching import ItemCost
from predictor.engine.call import POLL_S, Call
from predictor.errors import OutOfTime, Overloaded
from predictor.images.cost import DEAR_S, OTHER_BYTE_NS, DearImage
from predictor.images.decoding import Charge, decode, is_decoded_apart
from predictor.images.sandbox import thread_seconds
from predictor.settings import Settings

if TYPE_CHECKING:
    from PIL.Image import Image

Result = TypeVar("Result")

# Seconds that an image waits longer per second that it is expected to take, while cheaper images
# wait, too. Without that, 20 clients with flat WebP files of 0.09 s made the photos of others take
# 1.0 to 1.5 s. Dear images wait among their like instead.
PATIENCE = 10
# An image whose pixels are expected to take so many seconds goes back to the queue if others wait.
# Photos of 12 megapixels take 0.03 s. To read the header of one again would take 2 ms.
YIELD_S = 0.04
# After so many CPU seconds, an image that was not expected to be dear is. The estimate may be half
# of what an image costs.
UNEXPECTED_S = 2 * DEAR_S
# Images that may wait in any case among dear ones, or those decoded apart: with a quarter of 8
# slots for them, a rush of 8 photos of 16 megapixels was refused.
LEAST_WAITING = 16


class Decoders:
    """Decode as many images at once as there are decoders. Any thread may use it.

    Attributes:
        turns: the queue for a decoder.
        dear: the queue of the images that cost much. One of them at a time is decoded, so that
            others get the other decoders.
        apart: the queue of those that are decoded in a process of their own. They leave one decoder
            to others, for their estimates may be wrong: a TIFF of 400 bytes takes 0.4 s, not 0.01.
    """

    def __init__(self, count: int, settings: Settings) -> None:
        """Create the decoders. An image is refused if it would wait for half the timeout.

        It would then hardly be answered in time. Each waiting image holds one of the slots: dear
        images, and those that are decoded apart, leave some to others.
        """
        self._request_s, self._max_pixels = settings.request_timeout_s / 2, settings.max_pixels
        slots = settings.max_in_flight
        self.turns = Turns(count, self._request_s)
        self.dear = Turns(1, self._request_s, max(LEAST_WAITING, slots // 4))
        self.apart = Turns(max(1, count - 1), self._request_s, max(LEAST_WAITING, slots // 2))

    @property
    def waiting(self) -> int:
        """Number of images that wait in any queue."""
        return self.turns.waiting + self.dear.waiting + self.apart.waiting

    def decode(
        self,
        data: bytes,
        call: Call,
        enough: int | None,
        prepare: Callable[[Image], Result],
        alpha: bool = False,
    ) -> Result:
        """Decode an image when it is its turn, and return what ``prepare`` makes of it.

        The call pays the estimated CPU seconds from its budget, or more if it took longer. For
        ``data``, ``enough`` and ``alpha`` see :func:`predictor.images.decoding.decode`.

        Raises:
            RequestError: the image cannot be decoded or is too costly, or the client left.
            ServiceError: too many images are waiting, or the deadline has passed.
        """
        budget = call.budget
        began_s = thread_seconds()
        spent_s, expected_s = budget.spent_s, UNEXPECTED_S

        def charge(seconds: float) -> None:
            # The images of a request are decoded one after the other: more could not be in time.
            budget.charge(self._request_s, self._max_pixels, seconds)
            pixels_s = seconds - len(data) * OTHER_BYTE_NS / 1e9
            if seconds > DEAR_S or (pixels_s > YIELD_S and self.turns.waiting):
                nonlocal expected_s
                expected_s = seconds
                raise DearImage

        def run(charge: Charge, most_s: float) -> Result:
            return prepare(decode(data, self._max_pixels, enough, charge, alpha, most_s))

        try:
            with suppress(DearImage), self._lane(data, call), self.turns.take(call):
                budget.size += len(data)
                left_s = budget.left_s(self._request_s, self._max_pixels)
                # The estimate is not exact, and processors differ.
                most_s = budget.left_s(self._request_s, self._max_pixels, spare=2)
                try:
                    return run(charge, min(left_s, UNEXPECTED_S))
                except OutOfTime:  # it costs more than its header says
                    if left_s <= UNEXPECTED_S:
                        raise
            # The image has paid. It waits here, where nothing holds it open: an open WebP keeps
            # memory for its pixels.
            patient_s = expected_s if expected_s <= DEAR_S else 0
            with self._lane(data, call, expected_s), self.turns.take(call, patient_s):
                return run(lambda _: None, most_s - (thread_seconds() - began_s))
        finally:
            budget.spent_s = max(budget.spent_s, spent_s + thread_seconds() - began_s)

    def _lane(
        self, data: bytes, call: Call, expected_s: float = 0.0
    ) -> AbstractContextManager[None]:
        """Return the turn that an image needs before one at a decoder."""
        if expected_s > DEAR_S:
            return self.dear.take(call, expected_s)
        return self.apart.take(call, expected_s) if is_decoded_apart(data) else nullcontext()


class Turns:
    """A queue for a number of decoders. Any thread may use it."""

    def __init__(self, decoders: int, most_s: float, most: float = inf) -> None:
        """Create free decoders. Images are refused behind ``most`` others or ``most_s`` of work."""
        self._decoders = self._free = decoders
        self._most_s, self._most = most_s, most
        self._cost = ItemCost()  # of a turn
        self._lock = threading.Lock()  # guards all of the above
        # Released when its turn comes: when that is due, and the seconds it is expected to take.
        self._waiting: dict[threading.Lock, tuple[float, float]] = {}

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
        expected_s = sum(seconds for _, seconds in self._waiting.copy().values())
        return max(self.waiting * self._cost.seconds, expected_s) / self._decoders

    @property
    def full(self) -> bool:
        """Whether a further image is refused: it would wait for too long, or behind too many."""
        return self.backlog_s > self._most_s or self.waiting >= self._most

    @contextmanager
    def take(self, call: Call, expected_s: float = 0.0) -> Iterator[None]:
        """Wait for a decoder and hold it for the block, which decodes one image.

        ``expected_s``: the seconds that this takes at least, as far as they are known.

        Raises:
            ClientGone: the client has closed its connection.
            DeadlineExceeded: there was no decoder before the deadline.
            Overloaded: the queue is too long.
        """
        call.check()
        if (turn := self._join(expected_s)) is not None:
            self._wait(turn, call)
        began = monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._cost.learn(monotonic() - began, 1)
                self._pass_on()

    def _join(self, expected_s: float) -> threading.Lock | None:
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
            self._waiting[turn] = monotonic() + PATIENCE * expected_s, expected_s
            return turn

    def _wait(self, turn: threading.Lock, call: Call) -> None:
        try:
            while not turn.acquire(timeout=min(POLL_S, call.seconds_left)):
                call.check()
            call.check()
        except BaseException:
            with self._lock:
                if self._waiting.pop(turn, None) is None:  # the turn came in the meantime
                    self._pass_on()
            raise

    def _pass_on(self) -> None:
        """Give the decoder to the image whose turn is due first. The caller holds the lock."""
        if self._waiting:
            turn = min(self._waiting, key=self._waiting.__getitem__)
            del self._waiting[turn]
            turn.release()
        else:
            self._free += 1
