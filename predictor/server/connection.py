"""One client's connection: its requests arrive and its responses leave in the event loop.

A thread gets a request only when the request is complete, and gives back a complete response. A
slow client thus costs a buffer for a limited time, and never a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from gunicorn.http.wsgi import create  # type: ignore[import-untyped]

from predictor.environ import ERROR, HAS_LEFT, SLOTS
from predictor.errors import BadRequest, Evicted, PredictorError, RequestTimeout, SendTimeout
from predictor.server.reception import Reception

if TYPE_CHECKING:
    from predictor.server.event_loop import EventLoopWorker

LINGER_S = 2.0  # for the client to read a response before its connection is closed


class State(Enum):
    """What a connection waits for."""

    IDLE = auto()  # the first byte of a request
    RECEIVING = auto()  # the rest of a request
    WORKING = auto()  # the response
    SENDING = auto()  # the client to read the response
    LEAVING = auto()  # the client to close, after its last response


class Output:
    """Collects a response, in the place of the socket to which gunicorn writes."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        """Add a part of the response."""
        self.pieces.append(data)

    def send(self, _data: bytes) -> None:
        """Ignore gunicorn's ``100 Continue``: the connection sends it after checking the head."""


class Connection(asyncio.Protocol):
    """A client's connection.

    Attributes:
        state: what the connection waits for.
        since: when it began to wait, in seconds on the monotonic clock.
        deadline: when it stops waiting.
        held: bytes that it keeps in memory while it waits for the client.
    """

    def __init__(self, worker: EventLoopWorker, peer: Any) -> None:
        """Prepare for the first request. ``peer`` is the client's address."""
        self.held = 0
        self._worker, self._peer = worker, peer
        self._requests = 0
        self._has_left = False
        self._output, self._close_after = Output(), False
        self._response: Any = None
        self._environ: dict[str, Any] = {}
        self._next = b""  # received behind the current request

    def connection_made(self, transport: Any) -> None:
        """Begin to receive."""
        self._transport = transport
        transport.set_write_buffer_limits(high=0)  # resume_writing then means: all is sent
        self._worker.connections.add(self)
        self._expect_request(self._worker.receive_timeout_s)

    def connection_lost(self, _error: Exception | None) -> None:
        """Forget the connection. A thread that works for it finds that the client has left."""
        self._has_left = True
        self._hold(0)
        self._worker.connections.discard(self)

    def eof_received(self) -> bool:
        """Handle the client's end of sending: a client that closes sends no other message."""
        self._has_left = True
        if self.state in (State.IDLE, State.RECEIVING, State.LEAVING):
            self._abort()
        return True  # a response can still be sent, except over TLS

    def data_received(self, data: bytes) -> None:
        """Add bytes to the request, or keep them for the next one while a response is pending."""
        if self.state in (State.WORKING, State.SENDING):
            self._next += data
            self._hold(self.held + len(data))
            self._transport.pause_reading()
        elif self.state is not State.LEAVING:
            self._receive(data)

    def resume_writing(self) -> None:
        """Continue after a response that has been sent."""
        if self.state is State.SENDING:
            self._sent()

    def check(self, now: float, draining: bool) -> None:
        """End what has lasted too long. The worker calls this several times a second."""
        idle = draining and self.state is State.IDLE and now > self.since + LINGER_S
        if now <= self.deadline and not idle:
            return
        if self.state is State.RECEIVING:
            self._refuse(RequestTimeout("The request did not arrive in time."))
        elif self.state is State.SENDING:
            self._cut(SendTimeout("The client did not read the response in time."))
        else:
            self._abort()

    def give_way(self) -> None:
        """End, because the worker needs the connection or its memory for others."""
        if self.state is State.RECEIVING:
            self._refuse(Evicted("The request arrived too slowly while other clients waited."))
        elif self.held:
            self._cut(Evicted("The client read too slowly while other clients waited."))
        else:
            self._abort()

    # Receiving

    def _expect_request(self, timeout_s: float) -> None:
        worker = self._worker
        if self._transport.is_closing():
            return
        self._requests += 1
        self._reception = Reception(worker.cfg, self._peer, self._requests, worker.max_body)
        self._wait(State.IDLE, timeout_s)
        received, self._next = self._next, b""
        self._transport.resume_reading()
        if received:
            self._receive(received)

    def _receive(self, data: bytes) -> None:
        reception = self._reception
        if self.state is State.IDLE:
            self._wait(State.RECEIVING, self._worker.receive_timeout_s)
        begun = reception.request is not None
        try:
            reception.feed(data)
        except PredictorError as error:
            self._refuse(error)
            return
        self._hold(len(reception.buffer))
        if reception.whole:
            self._next = reception.rest()
        if reception.request is not None and not begun and self._answer_head():
            return
        if reception.whole:
            self._handle()
        else:
            self._worker.make_room()

    def _answer_head(self) -> bool:
        """Answer if the head suffices: a refusal or a probe. Return whether it was answered."""
        request = self._reception.request
        self._prepare(request)
        if self._call(self._worker.head):
            return True
        expects = self._environ.get("HTTP_EXPECT", "").lower() == "100-continue"
        if expects and request.version >= (1, 1) and not self._reception.whole:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return False

    def _prepare(self, request: Any) -> None:
        """Create the environ and the response of a request."""
        worker, self._output = self._worker, Output()
        server = self._transport.get_extra_info("sockname")
        self._response, self._environ = create(
            request, self._output, self._peer, server, worker.cfg
        )
        self._environ[HAS_LEFT] = lambda: self._has_left
        if not worker.alive:
            self._response.force_close()

    def _call(self, app: Callable[..., Any]) -> bool:
        """Call an app here, in the event loop, and send its response, if it returns one."""
        if not self._reception.whole:
            self._response.force_close()
        try:
            if not respond(app, self._environ, self._response):
                self._response.must_close = not self._worker.alive
                return False
        except Exception:
            self._worker.log.exception("A request failed in the event loop.")
            self._abort()
            return True
        self._send()
        return True

    def _refuse(self, error: PredictorError) -> None:
        """Answer a request that has not arrived, or cannot be parsed, and close."""
        if not self._environ:
            self._prepare(self._reception.request or self._reception.placeholder())
        self._environ[ERROR] = error
        self._response.force_close()
        self._call(self._worker.head)

    # Working

    def _handle(self) -> None:
        """Give the complete request to a thread, with a slot if it needs one."""
        slots = self._environ.get(SLOTS)
        try:
            if slots is not None:
                slots.take()
        except PredictorError as error:
            self._environ[ERROR] = error
            self._call(self._worker.head)
            return
        self._hold(len(self._next))
        self._wait(State.WORKING, inf)
        self._worker.pool.submit(self._work, slots)

    def _work(self, slots: Any) -> None:
        """Run the app, in a thread."""
        worker, finish = self._worker, self._send
        try:
            self._environ["wsgi.input"] = self._reception.body()
            self._reception.buffer = bytearray()
            respond(worker.wsgi, self._environ, self._response)
        except BadRequest as error:  # a malformed chunk
            finish = partial(self._refuse, error)
        except Exception:
            worker.log.exception("The app failed to answer a request.")
            finish = self._abort
        finally:
            if slots is not None:
                slots.release()
        with suppress(RuntimeError):  # the loop has ended
            worker.loop.call_soon_threadsafe(finish)

    # Sending

    def _send(self) -> None:
        self._close_after = self._response.should_close() or not self._reception.whole
        self._environ, self._reception.buffer = {}, bytearray()
        self._worker.count_request()
        if self._transport.is_closing():
            return
        self._wait(State.SENDING, self._worker.receive_timeout_s)
        self._transport.write(b"".join(self._output.pieces))
        self._output = Output()
        unsent = self._transport.get_write_buffer_size()
        self._hold(unsent + len(self._next))
        if unsent:
            self._worker.make_room()
        else:
            self._sent()

    def _sent(self) -> None:
        self._hold(len(self._next))
        if self._close_after or not self._worker.alive or (self._has_left and not self._next):
            self._leave()
        else:
            # Not at once: the other connections get their turn between pipelined requests.
            self._worker.loop.call_soon(self._expect_request, self._worker.cfg.keepalive)

    def _leave(self) -> None:
        """Close once the client has read the response. Otherwise a reset could discard it."""
        self._wait(State.LEAVING, LINGER_S)
        self._next = b""
        self._hold(0)
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        elif self._reception.whole:
            self._transport.close()

    def _cut(self, error: PredictorError) -> None:
        """Close without a response; only count and log the error."""
        self._worker.log.info("A response to %s is cut off: %s", self._peer, error)
        self._worker.service.metrics.rejected.labels(error.code).inc()
        self._abort()

    def _abort(self) -> None:
        self._wait(State.LEAVING, LINGER_S)
        self._hold(0)
        self._transport.abort()

    # Bookkeeping

    def _wait(self, state: State, timeout_s: float) -> None:
        self.state, self.since = state, monotonic()
        self.deadline = self.since + timeout_s

    def _hold(self, size: int) -> None:
        self._worker.held += size - self.held
        self.held = size


def respond(app: Callable[..., Any], environ: dict[str, Any], response: Any) -> bool:
    """Call a WSGI app and write its response; return False if it returns None."""
    pieces = app(environ, response.start_response)
    if pieces is None:
        return False
    try:
        for piece in pieces:
            response.write(piece)
        response.close()
    finally:
        if hasattr(pieces, "close"):
            pieces.close()
    return True
