"""One client's connection: its requests arrive and its responses leave in the event loop.

A thread gets a request only when the request is complete, and gives back a complete response. A
slow client thus costs a buffer for a limited time, and never a thread.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from predictor.environ import MAX_BODY_WITHOUT_SLOT
from predictor.errors import ClientGone, Evicted, PredictorError, RequestTimeout, SendTimeout
from predictor.server.departure import PROBE, Departure, abandon, limit_unread, limit_unsent, reset
from predictor.server.exchange import Exchange
from predictor.server.reception import Reception

if TYPE_CHECKING:
    from predictor.server.event_loop import EventLoopWorker

SLOW = "The client was slow while other clients waited."
PIECE = 64 * 1024  # bytes of a response that are sent at once; copying 1.7 MB takes 5 ms
MAX_BEHIND = 64 * 1024  # bytes that are received behind a request, to see the client leave
NEW_S = 1.0  # a client that has been silent for longer is not new: 1,000 of them may have waited
LINGER_S = 2.0  # for the client to read a response, or go on sending, before the connection closes


class Connection(asyncio.Protocol):
    """A client's connection.

    Attributes:
        since: when it began to wait for its client, or got the first of its pipelined requests.
        held: bytes that it holds for its client, received or to be sent.
        evicted: whether the worker has ended it for the sake of other clients.
        state: "idle", "queued", "receiving", "working", "sending" or "leaving".
    """

    def __init__(self, worker: "EventLoopWorker", peer: Any, server: Any) -> None:
        """Prepare for the first request. ``peer`` and ``server`` are the addresses of both ends."""
        self.held, self.since, self.state = 0, monotonic(), "idle"
        self._queue = worker.queues.cheap  # of the next request, unless it is new
        self._worker, self._peer, self._server = worker, peer, server
        self._received, self._pipelined = bytearray(), False
        self._changed = asyncio.Event()  # bytes were received or sent, or the client has left
        self._has_left = self.evicted = False
        self._timeout: asyncio.Timeout | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to receive."""
        self._transport = transport
        transport.set_write_buffer_limits(high=0)  # resume_writing then means: all is sent
        limit_unsent(transport)
        self._departure = Departure(self._worker.loop, transport, self._worker.half_open)
        self._worker.connections.add(self)
        self._task = self._worker.loop.create_task(self._converse())

    def connection_lost(self, _error: Exception | None) -> None:
        """Forget the connection. A thread that works for it finds that the client has left."""
        self._hold(0)
        self._worker.connections.discard(self)
        self._worker.evicted.discard(self)
        self._has_left = True
        self._departure.end()
        self._changed.set()
        self._worker.note_freed()

    def eof_received(self) -> bool:
        """Note that the client has closed, or will only read: without TLS, it gets its response."""
        self._has_left = True
        self._departure.begin()
        if self.state == "queued":
            self._departure.look(self._received)
        self._changed.set()
        return bool(self._transport.can_write_eof())

    def data_received(self, data: bytes) -> None:
        """Keep the bytes. While a response is pending, receive hardly more: only to see the end."""
        if self.state == "leaving":
            return self._linger_on()
        self._received += data
        self._hold(self.held + len(data))
        if self.state not in ("idle", "receiving") and len(self._received) > MAX_BEHIND:
            self._transport.pause_reading()
        self._changed.set()
        self._worker.make_room()

    def resume_writing(self) -> None:
        """Continue after a response that has been sent."""
        self._changed.set()

    def drain(self) -> None:
        """If the worker shuts down, wait for the client only so long."""
        rest_s = self._worker.drain_s
        limit_s = {"idle": LINGER_S, "receiving": rest_s, "sending": rest_s}.get(self.state)
        if self._worker.alive or limit_s is None or self._timeout is None:
            return
        until, set_to = self._worker.loop.time() + limit_s, self._timeout.when()
        if set_to is not None and set_to > until and not self._timeout.expired():
            self._timeout.reschedule(until)

    def evict(self, may_answer: bool = True) -> None:
        """End for the sake of other clients: with an answer if it receives and may, or at once."""
        wait, may_answer = self._timeout, may_answer and self.state != "leaving"
        if may_answer and wait is not None and not (wait.expired() or self.evicted):
            wait.reschedule(self._worker.loop.time())
        elif self.held:  # it receives, sends, or works and holds a pipelined request
            self._cut(Evicted(SLOW))
        else:
            abandon(self._transport)
        self.evicted = True
        self._hold(0)

    async def _converse(self) -> None:
        number, wait_s = 1, self._worker.receive_timeout_s
        try:
            while await self._exchange(number, wait_s):
                number, wait_s = number + 1, self._worker.cfg.keepalive
        except Exception:
            self._worker.log.exception("A connection failed.")
        abandon(self._transport)

    async def _exchange(self, number: int, wait_s: float) -> bool:
        """Receive a request and send its response. Return whether another request may follow."""
        exchange = await self._receive(number, wait_s)
        if exchange is not None and not (exchange.answered or self.evicted):
            await self._work(exchange)
        if exchange is None or not exchange.answered:
            return False
        self._queue = self._worker.queues.after(exchange.spent_s, exchange.is_overload)
        if number > 1:
            self._queue.rest(exchange.spent_s)
        self._worker.nr += 1  # for --max-requests
        if not await self._send(exchange.output):
            return False
        if (self._received or not self._has_left) and not (exchange.must_close or self.evicted):
            return True  # also while the worker shuts down: no response has announced the close
        await self._linger(exchange.whole)
        return False

    async def _receive(self, number: int, wait_s: float) -> Exchange | None:
        """Receive a request, or as much as decides its answer; None if the client has left."""
        worker = self._worker
        reception = Reception(worker.cfg, self._peer, number, worker.max_body)
        self._enter("idle")
        try:
            async with self._limit(wait_s if worker.alive else LINGER_S):
                return await self._take(reception, number)
        except TimeoutError:
            in_time = "in time." if worker.alive else "before this process ended. Send it again."
            error: PredictorError = RequestTimeout(f"The request did not arrive {in_time}")
        except PredictorError as malformed:
            error = malformed
        if self.state == "idle":
            return None
        exchange = self._begin(reception.request or reception.placeholder(self._received))
        exchange.refuse(Evicted(SLOW) if self.evicted else error)
        self._received.clear()
        return exchange

    async def _take(self, reception: Reception, number: int) -> Exchange | None:
        exchange = None
        while True:
            if self._received:
                if self.state == "idle":
                    is_new = number == 1 and monotonic() < self.since + NEW_S
                    if not (is_new or await self._wait_in_queue()):
                        return None
                    self._enter("receiving", self._worker.receive_timeout_s)
                    self.drain()
                reception.take(self._received)
            if exchange is None and reception.request is not None:
                exchange = self._begin(reception.request)
                if exchange.answer_head(close=not (reception.whole and self._worker.alive)):
                    exchange.whole = reception.whole
                    return exchange
                if not exchange.needs_slot:
                    reception.max_body = MAX_BODY_WITHOUT_SLOT
                if exchange.expects_continue and not reception.whole:
                    self._transport.write(PROBE)
            if exchange is not None and reception.whole:
                exchange.body, exchange.whole = reception.body, True
                return exchange
            if self._has_left:
                return None
            self._transport.resume_reading()
            await self._change()

    async def _wait_in_queue(self) -> bool:
        """Wait for a turn behind new clients; return False if the client has left meanwhile."""
        self._enter("queued", self._worker.receive_timeout_s)
        self._departure.look(self._received)
        return await self._queue.enter(self._departure.left.done)

    def _begin(self, request: Any) -> Exchange:
        self._departure.can_probe = request.version >= (1, 1)
        return Exchange(self._worker, request, self._peer, self._server, self._departure.left)

    async def _work(self, exchange: Exchange) -> None:
        """Let a thread answer, if the client is there and the request gets the slot it needs."""
        self._enter("working")
        try:
            await self._departure.check()
            exchange.take_slot()
        except ClientGone as error:
            self._cut(error)
        except PredictorError as error:
            exchange.refuse(error, close=not self._worker.alive)
        else:
            pool = self._worker.pool if exchange.needs_slot else self._worker.quick_pool
            await self._worker.loop.run_in_executor(pool, exchange.run)
            self._worker.note_freed()

    async def _send(self, output: list[bytes]) -> bool:
        """Send a response; return whether all of it was sent."""
        self._enter("sending")
        data = memoryview(b"".join(output))
        output.clear()
        try:
            async with self._limit(self._worker.receive_timeout_s):
                self.drain()
                self._hold(len(self._received) + len(data))
                self._worker.make_room()
                for sent in range(0, len(data), PIECE):
                    await self._write(data[sent : sent + PIECE])
        except TimeoutError:
            late = SendTimeout("The client did not read the response in time.")
            self._cut(Evicted(SLOW) if self.evicted else late)
            return False
        return bool(data) and not self._transport.is_closing()

    async def _write(self, piece: memoryview) -> None:
        """Send a part of a response, and let other connections have their turn after a long one."""
        if self._transport.is_closing():
            return
        self._transport.write(piece)
        if len(piece) == PIECE:
            await asyncio.sleep(0)
        while self._transport.get_write_buffer_size() and not self._transport.is_closing():
            await self._change()

    def _cut(self, error: PredictorError) -> None:
        """Count and log an error that the client cannot be sent, and close."""
        self._worker.log.info("The connection of %s is cut off: %s", self._peer, error)
        self._worker.store.metrics.rejected.labels(error.code, "", "").inc()
        reset(self._transport)

    async def _linger(self, whole: bool) -> None:
        """Let the client read the response: to close while it sends would discard the response."""
        self._received.clear()
        self._enter("leaving")
        self._transport.resume_reading()
        limit_unread(self._transport)  # TLS closes by itself
        with suppress(OSError):  # disconnected, or the time is over
            if self._transport.can_write_eof():
                self._transport.write_eof()
            elif whole:
                self._transport.close()
            async with self._limit(LINGER_S):
                while not self._has_left:
                    await self._change()

    def _linger_on(self) -> None:
        """Wait longer for a client that sends: many read no answer before they have sent all."""
        wait, until = self._timeout, self.since + self._worker.receive_timeout_s
        if self._worker.alive and wait is not None and not (wait.expired() or self.evicted):
            wait.reschedule(min(self._worker.loop.time() + LINGER_S, until))

    def _enter(self, state: str, within_s: float | None = None) -> None:
        self.state = state
        self._departure.wait_for_answer(state in ("queued", "working"))
        if state == "idle":
            self._pipelined = bool(self._received)
        if not self._pipelined:
            self.since = monotonic()
        self._hold(len(self._received))
        if within_s is not None and self._timeout is not None and not self.evicted:
            self._timeout.reschedule(self._worker.loop.time() + within_s)

    @asynccontextmanager
    async def _limit(self, seconds: float) -> AsyncIterator[None]:
        """Raise TimeoutError if the block takes longer, or if the worker ends the connection."""
        try:
            async with asyncio.timeout(seconds) as self._timeout:
                yield
        finally:
            self._timeout = None

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _hold(self, size: int) -> None:
        """Count the bytes that are held. A lost connection counts as 0, also in later calls."""
        size = 0 if self.evicted or self._transport.is_closing() else size
        self._worker.held += size - self.held
        self.held = size
