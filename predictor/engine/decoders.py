"""The decoders of a process: requests take turns, one image at a time, and pay for each.

A request with several images goes to the end of the queue after each of them. So the photo of
another request waits for at most one image of each request before it, and for none that costs much
more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from predictor.engine.call import Call
from predictor.engine.turns import USUAL_BYTES, Turns
from predictor.errors import OutOfTime
from predictor.images.cost import DEAR_S, DearImage
from predictor.images.decoding import Charge, decode, is_decoded_apart
from predictor.images.sandbox import thread_seconds
from predictor.settings import Settings

if TYPE_CHECKING:
    from PIL.Image import Image

Result = TypeVar("Result")

# An image that is expected to take so many seconds, and has few bytes for that, goes back to the
# queue if others wait. For a photo, to read its header again takes 2 ms.
YIELD_S = 0.01
# CPU seconds that a byte may cost which was not sent, as its body was compressed. A PNG of 64,000
# chunks took 0.12 s, and has 1.8 kB as gzip: 60 clients with it made photos of others take 5 s.
UNSENT_S, USUAL_RATIO = 150e-9, 4
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
        size = len(data) / budget.ratio
        unsent_s = UNSENT_S * max(0.0, len(data) - USUAL_RATIO * size)
        lane = self.apart if is_decoded_apart(data) else None

        def charge(seconds: float) -> None:
            # The images of a request are decoded one after the other: more could not be in time.
            budget.charge(self._request_s, self._max_pixels, seconds)
            seconds += thread_seconds() - began_s  # what its header has cost, which is read again
            paid_little = seconds > max(YIELD_S, size / USUAL_BYTES, unsent_s)
            others_wait = self.turns.waiting or self.apart.waiting
            if seconds > DEAR_S or (paid_little and others_wait):
                nonlocal expected_s
                expected_s = seconds
                raise DearImage

        def run(charge: Charge, most_s: float) -> Result:
            return prepare(decode(data, self._max_pixels, enough, charge, alpha, most_s))

        try:
            with suppress(DearImage), self._turn(lane, call, unsent_s, size):
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
            lane = self.dear if expected_s > DEAR_S else lane
            with self._turn(lane, call, max(expected_s, unsent_s), size):
                return run(lambda _: None, most_s - (thread_seconds() - began_s))
        finally:
            budget.spent_s = max(budget.spent_s, spent_s + thread_seconds() - began_s)

    @contextmanager
    def _turn(
        self, lane: Turns | None, call: Call, expected_s: float = 0.0, size: float = 0.0
    ) -> Iterator[None]:
        """Hold a decoder for the block. An image of a lane waits its longer time there only.

        It would keep the others of its lane waiting otherwise.
        """
        if lane is None:
            with self.turns.take(call, expected_s, size):
                yield
        else:
            with lane.take(call, expected_s, size), self.turns.take(call, size=size):
                yield
