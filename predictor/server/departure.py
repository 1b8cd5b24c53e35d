"""How connections end: tell a client that has left from one that has only closed its sending side.

Both look the same until the server sends something: the kernel of a client that has left answers
with a reset. ``100 Continue`` can be sent more than once, and every HTTP/1.1 client skips it.
"""

import asyncio
import struct
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from socket import IPPROTO_TCP, SO_LINGER, SOL_SOCKET
from typing import Any

from predictor.errors import ClientGone

HALF_OPEN_S = 1.0  # for the answer to a client that has closed its sending side, without a probe
# Such clients of a worker that wait at once for an answer, if slots are free. With more, the first
# of them is probed with each that comes, or counts as gone. Otherwise 80 in a second, which close
# after 30 ms, would hold all slots.
MAX_HALF_OPEN = 8
FIRST_LOOK_S, LOOK_S = 0.01, 0.25  # between two looks whether a probe was answered with a reset
PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"
NO_LINGER = struct.pack("ii", 1, 0)
# Of Linux. The first byte of TCP_INFO is the connection's state.
TCP_INFO, CLOSE_WAIT, TCP_USER_TIMEOUT, TCP_NOTSENT_LOWAT = 11, 8, 18, 25
# Bytes that the kernel takes before it can send them. Otherwise it would take 1.7 MB for a client
# that reads nothing, beside all limits of the worker: 300 connections held 0.9 GB.
UNSENT = 128 * 1024
UNREAD_S = 30.0  # for a client to read on after the connection was closed


class HalfOpen(dict["Departure", None]):
    """The clients of a worker that only read, and wait for an answer, the first of them first."""

    def __init__(self, free_slots: Callable[[], int]) -> None:
        """Begin without any."""
        super().__init__()
        self._free_slots = free_slots

    @property
    def most(self) -> int:
        """How many of them may wait without a probe: few while slots are short."""
        return min(MAX_HALF_OPEN, self._free_slots() // 4)

    def thin_out(self) -> None:
        """If there are too many, probe one, or count one as gone that cannot be probed.

        It may have been probed before: it can leave after that, and nothing tells the server.
        """
        if len(self) > self.most:
            too_many_mute = sum(not one.can_probe for one in self) > MAX_HALF_OPEN
            chosen = (one for one in self if one.can_probe != too_many_mute)
            if (first := next(chosen, None)) is not None:
                first._ask()


class Departure:
    """Whether the client of a connection has left.

    Attributes:
        left: done once the client has left. Threads wait for it.
        can_probe: whether its request is HTTP/1.1. HTTP/1.0 has no interim responses: such a client
            has left a while after it has closed its sending side.
    """

    def __init__(self, loop: AbstractEventLoop, transport: Any, half_open: HalfOpen) -> None:
        """Prepare for a client.

        A reference to its connection would be a cycle, which keeps the buffers in memory.
        """
        self._loop, self._half_open, self._transport = loop, half_open, transport
        self.left: Future[None] = Future()
        self.can_probe = self._is_pending = self._has_closed = False
        self._next_step: TimerHandle | None = None

    def wait_for_answer(self, is_pending: bool) -> None:
        """Note whether a response is pending: only then a probe may be sent, and a place is taken.

        If too many such clients are half-closed, the first of them is probed, or counts as gone.
        """
        self._is_pending = is_pending
        if not is_pending:
            self._half_open.pop(self, None)
            self._plan(None)
        elif self._has_closed and not (self.left.done() or self._next_step):
            self._half_open[self] = None
            self._plan(HALF_OPEN_S, self._ask)
            self._half_open.thin_out()

    def begin(self) -> None:
        """Note that the client has closed its sending side."""
        self._has_closed = True
        self.wait_for_answer(self._is_pending)

    def end(self) -> None:
        """Note that the connection is lost.

        A request that was not whole stays in memory until the garbage is collected. With the
        transport, TLS would keep its buffers, too.
        """
        self._transport = None
        self._give_up()

    async def check(self) -> None:
        """Raise ClientGone if the client has left before any work for it.

        If many clients are half-closed, ask this one. Otherwise threads would work for 400 in a
        second that close with their requests.
        """
        await asyncio.sleep(0)  # the end may have come with the request
        self._half_open.thin_out()
        if self._has_closed and self.can_probe and len(self._half_open) >= self._half_open.most:
            self._ask()
        if self.left.done():
            raise ClientGone("The client has closed its connection.")

    def look(self, request: bytes | bytearray) -> None:
        """Probe at once, while this request waits in a queue."""
        self.can_probe = b" HTTP/1.1\r\n" in request
        if self._has_closed and self.can_probe:
            self._ask()

    def _ask(self) -> None:
        """Probe the client, and look for a reset. If it cannot be probed, it counts as gone."""
        self._half_open.pop(self, None)
        if not self.can_probe:
            self._give_up()
        elif self._transport is not None and not self._transport.is_closing():
            self._half_open[self] = None  # the last to be asked again
            self._transport.write(PROBE)
            self._watch(FIRST_LOOK_S)

    def _watch(self, again_s: float) -> None:
        """Look whether the client has answered with a reset, now and later."""
        if self._still_reads():
            self._plan(again_s, self._watch, min(2 * again_s, LOOK_S))
        else:
            self._give_up()

    def _give_up(self) -> None:
        """Tell the threads that the client has left."""
        self.wait_for_answer(False)
        if not self.left.done():
            self.left.set_result(None)

    def _plan(self, delay_s: float | None, *step: Any) -> None:
        """Take the next step after some seconds, or never."""
        if self._next_step is not None:
            self._next_step.cancel()
        self._next_step = None if delay_s is None else self._loop.call_later(delay_s, *step)

    def _still_reads(self) -> bool:
        transport = self._transport
        sock = transport.get_extra_info("socket") if transport is not None else None
        if sock is None:  # lost, or TLS that has ended
            return False
        with suppress(OSError):  # not TCP; or closed, which `end` will tell
            return bool(sock.getsockopt(IPPROTO_TCP, TCP_INFO, 1)[0] == CLOSE_WAIT)
        return True


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
