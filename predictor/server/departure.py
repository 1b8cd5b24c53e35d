"""How connections end: tell a client that has left from one that has only closed its sending side.

Both look the same until the server sends something: the kernel of a client that has left answers
with a reset. ``100 Continue`` can be sent more than once, and every HTTP/1.1 client skips it.
"""

import asyncio
import struct
from asyncio import AbstractEventLoop
from contextlib import suppress
from math import inf
from socket import IPPROTO_TCP, SO_LINGER, SOL_SOCKET
from time import monotonic
from typing import Any

from predictor.errors import ClientGone

HALF_OPEN_S = 1.0  # for the answer to a client that has closed its sending side, without a probe
# Such clients of a worker that wait at once for an answer. With more, the first of them are probed,
# or count as gone. Otherwise 80 in a second, which close after 30 ms, would hold all slots.
MAX_HALF_OPEN = 8
PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"
NO_LINGER = struct.pack("ii", 1, 0)
# Of Linux. The first byte of TCP_INFO is the connection's state.
TCP_INFO, CLOSE_WAIT, TCP_USER_TIMEOUT, TCP_NOTSENT_LOWAT = 11, 8, 18, 25
# Bytes that the kernel takes before it can send them. Otherwise it would take 1.7 MB for a client
# that reads nothing, beside all limits of the worker: 300 connections held 0.9 GB.
UNSENT = 128 * 1024
UNREAD_S = 30.0  # for a client to read on after the connection was closed


class Departure:
    """Whether the client of a connection has left.

    Attributes:
        can_probe: whether its request is HTTP/1.1. HTTP/1.0 has no interim responses: such a client
            has left a while after it has closed its sending side.
    """

    def __init__(
        self, loop: AbstractEventLoop, transport: Any, half_open: "dict[Departure, None]"
    ) -> None:
        """``half_open``: those of the worker whose clients only read, and wait for an answer.

        There is no reference to the connection: a cycle would keep its buffers in memory.
        """
        self._loop, self._half_open = loop, half_open
        self._may_probe = self.can_probe = False
        self._transport: Any = transport  # None: the connection is lost
        self._since, self._probed = inf, False

    def wait_for_answer(self, pending: bool) -> None:
        """Note whether a response is pending: only then a probe may be sent, and a place is taken.

        If too many such clients are half-closed, the first of them is probed, or counts as gone.
        """
        self._may_probe = pending
        if not pending:
            self._half_open.pop(self, None)
        elif self._since < inf and self._transport is not None:
            self._half_open[self] = None
            if len(self._half_open) > MAX_HALF_OPEN:
                first = next(iter(self._half_open))
                del self._half_open[first]
                first._since = 0.0
                first._ask()

    def begin(self) -> None:
        """Note that the client has closed its sending side."""
        self._since = min(self._since, monotonic() + HALF_OPEN_S)
        self.wait_for_answer(self._may_probe)

    def end(self) -> None:
        """Note that the connection is lost.

        A request that was not whole stays in memory until the garbage is collected. With the
        transport, TLS would keep its buffers, too.
        """
        self._transport = None
        self._half_open.pop(self, None)

    def is_over(self) -> bool:
        """Return whether the client has left. Threads call this several times a second."""
        if not self.can_probe or self._probed:
            return self.is_certain
        if monotonic() >= self._since:
            self._probed = True
            self._loop.call_soon_threadsafe(self._probe)
        return self._transport is None

    async def check(self) -> None:
        """Raise ClientGone if the client has left before any work for it.

        If many clients are half-closed, ask this one. Otherwise threads would work for 400 in a
        second that close with their requests.
        """
        await asyncio.sleep(0)  # the end may have come with the request
        if self._since < inf and len(self._half_open) >= MAX_HALF_OPEN:
            self._ask()
        if self._transport is None or (self._probed and self.is_certain):
            raise ClientGone("The client has closed its connection.")

    def look(self, request: bytes | bytearray) -> None:
        """Probe at once, while this request waits in a queue."""
        self.can_probe = b" HTTP/1.1\r\n" in request
        if self._since < inf:
            self._ask()

    @property
    def is_certain(self) -> bool:
        """Whether the client has left, as far as it is known without another probe."""
        if self._transport is None:
            return True
        return not self._still_reads() if self._probed else monotonic() >= self._since

    def _ask(self) -> None:
        if self.can_probe and not self._probed:
            self._probed = True
            self._probe()

    def _probe(self) -> None:
        if self._may_probe and self._transport is not None and not self._transport.is_closing():
            self._transport.write(PROBE)

    def _still_reads(self) -> bool:
        transport = self._transport
        sock = transport.get_extra_info("socket") if transport is not None else None
        if sock is None:  # lost, or TLS that has ended
            return False
        with suppress(OSError):  # closed, or not TCP
            return bool(sock.getsockopt(IPPROTO_TCP, TCP_INFO, 1)[0] == CLOSE_WAIT)
        return False


def abandon(transport: Any) -> None:
    """Close a connection. The client gets what the kernel still has for it, if it reads on."""
    limit_unread(transport)
    transport.abort()


def limit_unread(transport: Any) -> None:
    """Have the kernel drop what a closed connection has sent, if its client stops to read.

    It would keep it for minutes.
    """
    _set(transport, IPPROTO_TCP, TCP_USER_TIMEOUT, round(UNREAD_S * 1000))


def limit_unsent(transport: Any) -> None:
    """Have the kernel take little of what it cannot send yet."""
    _set(transport, IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT)


def reset(transport: Any) -> None:
    """Close a connection, and drop what the client has not received."""
    _set(transport, SOL_SOCKET, SO_LINGER, NO_LINGER)
    transport.abort()


def _set(transport: Any, level: int, option: int, value: int | bytes) -> None:
    if (sock := transport.get_extra_info("socket")) is not None:
        with suppress(OSError):  # already disconnected, or not TCP
            sock.setsockopt(level, option, value)
