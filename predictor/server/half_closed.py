"""Tell a client that has left from one that has only closed its sending side.

Both look the same until the server sends something: the kernel of a client that has left answers
with a reset. ``100 Continue`` can be sent more than once, and every HTTP/1.1 client skips it.
"""

from asyncio import AbstractEventLoop
from contextlib import suppress
from math import inf
from socket import IPPROTO_TCP
from time import monotonic
from typing import Any

HALF_OPEN_S = 1.0  # for the answer to a client that has closed its sending side, without a probe
PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"
TCP_INFO, CLOSE_WAIT = 11, 8  # Linux; the first byte of TCP_INFO is the connection's state


class Departure:
    """Whether the client of a connection has left.

    Attributes:
        may_probe: whether a request is in progress, so that a probe may be sent.
    """

    def __init__(self, loop: AbstractEventLoop, transport: Any) -> None:
        """Without a reference to the connection: a cycle would keep its buffers in memory."""
        self._loop, self._transport, self.may_probe = loop, transport, False
        self._since, self._probed = inf, False

    def begin(self, wait_s: float = HALF_OPEN_S) -> None:
        """Note that the client has closed its sending side."""
        self._since = min(self._since, monotonic() + wait_s)

    def is_over(self, can_probe: bool) -> bool:
        """Return whether the client has left. Threads call this several times a second.

        HTTP/1.0 has no interim responses: without a probe, the client has left after a while.
        """
        if monotonic() < self._since:
            return False
        if can_probe and not self._probed:
            self._probed = True
            self._loop.call_soon_threadsafe(self._probe)
        return not (self._probed and self._still_reads())

    def _probe(self) -> None:
        if self.may_probe and not self._transport.is_closing():
            self._transport.write(PROBE)

    def _still_reads(self) -> bool:
        sock = self._transport.get_extra_info("socket")
        if sock is None:  # TLS that has ended
            return False
        with suppress(OSError):  # closed, or not TCP
            return bool(sock.getsockopt(IPPROTO_TCP, TCP_INFO, 1)[0] == CLOSE_WAIT)
        return False
