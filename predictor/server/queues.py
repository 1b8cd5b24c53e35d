"""When a request may begin that is not the first of its connection: behind new clients.

It waits in one of three queues, by what its client's last request cost. In a single one, 64 clients
with costly requests, 20 of which pipeline ``GET /metrics``, made a probe wait for 3 s.
"""

import asyncio
from collections.abc import Callable
from time import monotonic

CHEAP_S = 0.0015  # of a processor; a probe takes 0.5 ms, a refused photo 1 ms
# That begin in one round of the loop. With one, 44 clients made a probe wait for 0.8 s; with more,
# 60 clients with probes take more from new clients.
CHEAP_AT_ONCE = 4
MAX_REST_S = 0.01  # after a request, as long as that took
# After a refusal: clients that send again at once would take the processors from the model. 128
# clients of VGG16 took a fifth of its images/s with 4 ms, and a twentieth with 15 ms.
REFUSED_REST_S = 0.015


class Queue:
    """Requests that begin one after the other, with a rest after each."""

    def __init__(self, at_once: int = 1, least_s: float = 0.0) -> None:
        """Begin empty.

        Args:
            at_once: how many requests may begin in the same round of the loop.
            least_s: the shortest rest after one.
        """
        self._turns, self._rest_until = asyncio.Semaphore(at_once), 0.0
        self._least_s = least_s

    async def enter(self, has_left: Callable[[], bool]) -> bool:
        """Wait for a turn. Return False if the client has left meanwhile."""
        async with self._turns:
            if has_left():
                return False
            await asyncio.sleep(self._rest_until - monotonic())
        return True

    def rest(self, spent_s: float) -> None:
        """Begin no other request for as long as one took, in addition to earlier rests."""
        now, most = monotonic(), max(self._least_s, MAX_REST_S)
        until = max(self._rest_until, now) + max(self._least_s, spent_s)
        self._rest_until = min(until, now + most)


class Queues:
    """The queues of a worker."""

    def __init__(self) -> None:
        """Begin with empty queues."""
        self.cheap, self._dear = Queue(CHEAP_AT_ONCE), Queue()
        self._refused = Queue(least_s=REFUSED_REST_S)

    def after(self, spent_s: float, refused: bool) -> Queue:
        """Return the queue of a client's next request.

        Args:
            spent_s: what the last request took of a processor.
            refused: whether it was refused because the server has too much to do.
        """
        if refused:
            return self._refused
        return self._dear if spent_s > CHEAP_S else self.cheap
