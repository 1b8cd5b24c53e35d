"""A gunicorn worker whose event loop owns the connections, and whose threads run the app."""

import asyncio
import os
import sys
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit, setrlimit
from socket import socket
from time import monotonic
from typing import Any

from gunicorn.sock import ssl_context  # type: ignore[import-untyped]
from gunicorn.workers.base import Worker  # type: ignore[import-untyped]

from predictor.server.connection import LINGER_S, Connection
from predictor.server.departure import HalfOpen
from predictor.server.queues import Queues
from predictor.server.reception import MAX_HEAD
from predictor.settings import current_settings

LEAST_HELD = 8 * 1024 * 1024  # bytes; the largest response of ImageNet's classes has 7.2 MB
# Connections that are accepted in one round of the loop. Others are left for another worker.
ACCEPTS = 32
DRAIN_S = 5.0  # for the rest of a request or response, when the server shuts down
ROUND_S = 0.01  # between two rounds while the worker shuts down
MAX_ANSWERED = 32  # evicted connections at once that get an answer; it takes a millisecond each
TICK_S = 0.25  # between two heartbeats; SIGTERM is noticed as soon
HANDSHAKE_S = 5.0  # for TLS
# Bytes of TLS that a connection decrypts at once. asyncio's 256 kB are in memory for each, and may
# be 11,000 records: two clients with records of one byte made /healthz wait for 1.7 s, now for
# 0.15 s. An upload of 20 MB takes 0.06 s more.
TLS_PIECE = 16 * 1024
SLOW_RATE = 2000  # bytes per second; a request that arrives so fast is never older than others


def raise_file_limit() -> int:
    """Allow this process as many open files as the system does, and return that number."""
    _, most = getrlimit(RLIMIT_NOFILE)
    setrlimit(RLIMIT_NOFILE, (most, most))
    return most if most != RLIM_INFINITY else sys.maxsize


class EventLoopWorker(Worker):  # type: ignore[misc]
    """Accepts connections, limits them in number, time and memory, and ends them in order.

    Attributes:
        connections: the open connections, without the evicted ones.
        evicted: those that were ended for the sake of other clients, and are not closed yet.
        half_open: those whose clients only read, and wait for an answer, the first of them first.
        held: bytes that the connections hold while they wait for their clients.
        drain_s: seconds for the rest of a request or response, once the worker shuts down.
        queues: of the requests that are not the first of their connections.
        freed_at: since when freed memory has not been returned to the kernel, on the monotonic
            clock; inf: all is returned.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take the limits from the settings. This runs in the master, before the fork."""
        super().__init__(*args, **kwargs)
        settings = current_settings()
        self.wsgi: Any = None  # the app; gunicorn sets it after it has enabled SIGTERM
        self.max_body = settings.max_upload_bytes
        self.receive_timeout_s = settings.receive_timeout_s
        self.management_bind = settings.management_bind
        # A fifth of the largest bodies of all slots (by default 256 MB), but at least one request.
        room = self.max_body * settings.max_in_flight // 5
        self._max_held = max(room, self.max_body + MAX_HEAD, LEAST_HELD)
        self.alive: bool
        self.drain_s = DRAIN_S
        self.connections: set[Connection] = set()
        self.evicted: set[Connection] = set()
        self._longest: list[Connection] = []  # that one round may evict, the first at the end
        self.held, self.freed_at = 0, monotonic()
        self._most = self.cfg.worker_connections
        self._opening: dict[asyncio.Task[Any], None] = {}  # the oldest first

    @property
    def store(self) -> Any:
        """The store of the app; None before the app is loaded."""
        return getattr(self.wsgi, "extensions", {}).get("predictor")

    def run(self) -> None:
        """Serve until gunicorn ends the worker."""
        self.loop = asyncio.new_event_loop()
        spare = 100 + self.cfg.threads  # descriptors for the app
        self._most = max(1, min(self._most, raise_file_limit() - spare))
        self.head: Callable[..., Any] = self.wsgi.extensions["head"]
        self.queues = Queues()
        self.half_open = HalfOpen(lambda: self.store.process.slots.free)
        self.pool = ThreadPoolExecutor(self.cfg.threads, thread_name_prefix="request")
        # Requests without a slot wait for nothing, except one that changes the store. More threads
        # would leave the loop no time.
        quick = 2 + bool(current_settings().all_management_tokens)
        self.quick_pool = ThreadPoolExecutor(quick, thread_name_prefix="quick")
        self._tls: dict[str, Any] = {}
        if self.cfg.is_ssl:
            SSLProtocol.max_size = TLS_PIECE
            limits = {"ssl_handshake_timeout": HANDSHAKE_S, "ssl_shutdown_timeout": LINGER_S}
            self._tls = {"ssl": ssl_context(self.cfg), **limits}
        self.loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        while self.alive and self.ppid == os.getppid():
            self.notify()
            self._listen(self.may_accept())
            await asyncio.sleep(TICK_S)
        self.alive = False
        await self._accept_rest()
        end = monotonic() + self.cfg.graceful_timeout
        for connection in self.connections:
            connection.drain()
        while (self.connections or self.evicted or self._opening) and monotonic() < end:
            self.notify()
            await asyncio.sleep(TICK_S)

    def may_accept(self) -> bool:
        """Return whether to accept connections now."""
        return True

    def note_freed(self) -> None:
        """Have freed memory returned to the kernel in some seconds."""
        self.freed_at = min(self.freed_at, monotonic())

    # Accepting

    def _listen(self, enabled: bool) -> None:
        """Begin or stop to accept, if not done yet. The kernel queues connections meanwhile."""
        for listener in self.sockets:
            if enabled:
                self.loop.add_reader(listener.fileno(), self._accept_some, listener)
            else:
                self.loop.remove_reader(listener.fileno())

    def _accept_some(self, listener: Any) -> bool:
        """Accept connections, and return whether more may be queued."""
        self._longest = []
        return all(self._accept(listener) for _ in range(ACCEPTS))

    def _accept(self, listener: Any) -> bool:
        """Accept one connection, and return whether there was one."""
        crowded = len(self.connections) + len(self._opening) >= self._most
        if not self.may_accept() or (crowded and not self._make_place()):
            self._listen(False)  # until the next tick
            return False
        try:
            client, peer = listener.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            self.log.error("A connection cannot be accepted: %s", error)
            for _ in range(ACCEPTS):
                self._make_place()
            self._listen(False)
            return False
        task = self.loop.create_task(self._open(client, peer, listener.getsockname()))
        self._opening[task] = None
        task.add_done_callback(lambda done: self._opening.pop(done, None))
        return True

    async def _open(self, client: socket, peer: Any, server: Any) -> None:
        factory = partial(Connection, self, peer, server)
        with suppress(OSError):  # the client has left, or the TLS handshake failed
            await self.loop.connect_accepted_socket(factory, client, **self._tls)

    async def _accept_rest(self) -> None:
        """Accept what the kernel has queued, then close: a queued client would get a reset.

        The requests of a round arrive before the next round may end their connections.
        """
        for _ in range(0, self.cfg.backlog, ACCEPTS):  # a flood would go on for ever
            more = [self._accept_some(listener) for listener in self.sockets]
            if not any(more):
                break
            await asyncio.sleep(ROUND_S)
        self._listen(False)
        for listener in self.sockets:
            listener.close()

    # Making room

    def make_room(self) -> None:
        """While the connections hold too much, end the one that has held most for longest.

        If most is for clients that do not read, one of them ends. A file of 1.7 MB costs them 70
        bytes: 20 such requests a second would end the uploads of others.
        """
        while self.held > self._max_held:
            now, crowd = monotonic(), self.connections
            sending = {c for c in crowd if c.state == "sending"}
            if sum(c.held for c in sending) > self._max_held / 2:
                crowd = sending
            worst = max(crowd, key=lambda c: c.held * (now - c.since + 1))
            if not worst.held:
                break
            self._evict(worst)

    def _make_place(self) -> bool:
        """End a connection that is being closed, or else the one that waits for longest."""
        if len(self._opening) > len(self.connections):  # TLS handshakes
            oldest = next(iter(self._opening))
            del self._opening[oldest]
            return bool(oldest.cancel())
        if not self._longest:
            waiting = (c for c in self.connections if c.state != "working")
            self._longest = sorted(waiting, key=lambda c: (c.state == "leaving", -_last_active(c)))
        if self._longest:
            self._evict(self._longest.pop())
            return True
        return False

    def _evict(self, connection: Connection) -> None:
        connection.evict(may_answer=len(self.evicted) < MAX_ANSWERED)
        self.connections.discard(connection)
        self.evicted.add(connection)


def _last_active(connection: Connection) -> float:
    """Return since when it waits; what has arrived of a request counts as time."""
    received = connection.held if connection.state == "receiving" else 0
    return connection.since + received / SLOW_RATE
