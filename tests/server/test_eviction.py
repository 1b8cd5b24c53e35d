"""A connection without a server: what the worker can do to it at any moment."""

import asyncio
import io
import logging
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from time import monotonic
from types import SimpleNamespace

import pytest
from gunicorn.config import Config

from predictor.engine.admission import Slots
from predictor.environ import SLOTS
from predictor.server.connection import Connection


class Transport(asyncio.Transport):
    """Takes all that is written at once."""

    def __init__(self):
        super().__init__()
        self.written, self.closed, self.paused = b"", False, False

    def write(self, data):
        self.written += data

    def write_eof(self):
        pass

    def abort(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def can_write_eof(self):
        return True

    def get_write_buffer_size(self):
        return 0

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def resume_reading(self):
        self.paused = False

    def pause_reading(self):
        self.paused = True


def head(environ, start_response):
    """Refuse with an error, answer a GET, or let the app answer."""
    if "predictor.error" not in environ and environ["REQUEST_METHOD"] != "GET":
        return None
    start_response("408 X", [("Content-Length", "0")])
    return [b""]


def make_worker():
    return SimpleNamespace(
        loop=asyncio.get_running_loop(), cfg=Config(), max_body=10**6, receive_timeout_s=60,
        alive=True, connections=set(), held=0, freed_at=0, turn=asyncio.Lock(), head=head,
        rest_until=0, rest=lambda _: None,
        log=logging.getLogger(), make_room=lambda: None, count_request=lambda: None,
    )  # fmt: skip


def open_connection(worker):
    connection, transport = Connection(worker, ("127.0.0.1", 1), ("127.0.0.1", 2)), Transport()
    connection.connection_made(transport)
    return connection, transport


def converse(*events):
    """A connection to which the events happen in one round of the loop; the transport and held."""

    async def run():
        worker = make_worker()
        connection, transport = open_connection(worker)
        await asyncio.sleep(0)
        for event in events:
            event(connection)
        for _ in range(20):
            await asyncio.sleep(0)
        connection.data_received(b"x" * 1000)
        connection.eof_received()
        await connection._task
        return transport, worker.held

    return asyncio.run(run())


def sends(data):
    return lambda connection: connection.data_received(data)


HEAD = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n"


@pytest.mark.parametrize(
    "events",
    [
        [sends(HEAD), Connection.evict],
        [sends(HEAD[:20]), Connection.evict],
        [sends(HEAD + b"x" * 499), Connection.evict],
        [sends(HEAD), Connection.evict, sends(b"x" * 100)],
        [Connection.evict, sends(HEAD)],
        [Connection.evict, Connection.evict],
    ],
    ids=["head", "part of a head", "body", "more after it", "before it", "twice"],
)
def test_an_evicted_connection_ends_and_holds_nothing(events):
    transport, held = converse(*events)
    assert transport.closed
    assert held == 0


def test_an_evicted_request_gets_an_answer():
    transport, _ = converse(sends(HEAD), Connection.evict)
    assert transport.written.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("pipelined", [False, True])
def test_later_requests_are_answered_one_in_a_round_and_a_new_client_at_once(pipelined):
    """Otherwise many clients with a cheap request each would delay new ones."""
    get, counts, new_after = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", [], []

    async def run():
        worker = make_worker()
        kept = [open_connection(worker) for _ in range(100)]
        for connection, _ in kept:
            connection.data_received(get * (3 if pipelined else 1))
        for _ in range(10):
            await asyncio.sleep(0)
        for connection, _ in kept:
            connection.data_received(get)
        new, transport = open_connection(worker)
        new.data_received(get)
        for _ in range(30):
            counts.append(sum(other.written.count(b"HTTP/1.1") for _, other in kept))
            new_after.append(len(transport.written))
            await asyncio.sleep(0)
        for connection, _ in [*kept, (new, transport)]:
            connection.eof_received()
            connection._transport.abort()

    asyncio.run(run())
    assert any(new_after[:4])
    assert max(after - before for before, after in pairwise(counts)) == 1


@pytest.mark.parametrize("free", [True, False], ids=["a slot", "no slot"])
def test_a_body_is_freed_before_its_response_is_read(free):
    size = 5_000_000

    def wsgi(environ, start_response):
        assert len(environ["wsgi.input"].read()) == size
        start_response("200 OK", [("Content-Length", "1")])
        return [b"x"]

    async def run():
        worker, slots = make_worker(), Slots(1)
        worker.pool = worker.quick_pool = ThreadPoolExecutor(1)
        worker.wsgi, worker.max_body = wsgi, size
        worker.head = lambda environ, start: environ.update({SLOTS: slots}) or head(environ, start)
        connection, transport = open_connection(worker)
        transport.get_write_buffer_size = lambda: 1  # the client does not read
        slots.held += not free
        tracemalloc.start()
        connection.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        connection.data_received(bytes(size))
        while not transport.written:
            await asyncio.sleep(0)
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        transport.abort()
        connection.eof_received()
        await connection._task
        return transport.written, held

    written, held = asyncio.run(run())
    assert written.startswith(b"HTTP/1.1 200" if free else b"HTTP/1.1 408")
    assert held < size / 2


GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_after_a_later_request_others_have_time():
    pause_s = 0.02

    async def run():
        worker = make_worker()
        worker.rest = lambda _: setattr(worker, "rest_until", monotonic() + pause_s)
        connection, transport = open_connection(worker)
        began = monotonic()
        connection.data_received(GET * 100)
        await asyncio.sleep(0.2)
        count, seconds = transport.written.count(b"HTTP/1.1"), monotonic() - began
        connection.eof_received()
        transport.abort()
        connection._task.cancel()
        return count, seconds

    count, seconds = asyncio.run(run())
    assert 2 < count <= 3 + seconds / pause_s


def test_pipelined_requests_count_from_the_first_and_are_not_read_without_limit():
    async def run():
        worker = make_worker()
        connection, transport = open_connection(worker)
        connection.data_received(GET * 10_000)
        await asyncio.sleep(0)
        began = connection.since
        paused = []
        for _ in range(100):
            await asyncio.sleep(0)
            connection.data_received(GET)
            paused.append(transport.paused)
        answered, since = transport.written.count(b"HTTP/1.1"), connection.since
        connection.eof_received()
        transport.abort()
        connection._task.cancel()
        return answered, all(paused[3:]), since - began

    answered, paused, moved = asyncio.run(run())
    assert answered > 10
    assert paused
    assert moved < 0.01


def test_without_keep_alive_the_response_announces_the_close():
    async def run():
        worker = make_worker()
        worker.cfg.set("keepalive", 0)
        connection, transport = open_connection(worker)
        connection.data_received(GET)
        await asyncio.sleep(0.01)
        connection.eof_received()
        await connection._task
        return transport.written

    assert b"Connection: close" in asyncio.run(run())


@pytest.mark.parametrize(("status", "rests"), [("200 OK", False), ("415 X", True)])
def test_a_rest_follows_a_request_only_if_the_model_did_not_run(status, rests):
    """A client that sends one photo after the other would lose a tenth of its time."""
    body, found = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", []

    def wsgi(_environ, start_response):
        start_response(status, [("Content-Length", "1")])
        return [b"x"]

    async def run():
        worker, slots = make_worker(), Slots(1)
        worker.pool = worker.quick_pool = ThreadPoolExecutor(1)
        worker.wsgi, worker.rest = wsgi, found.append
        worker.head = lambda environ, start: environ.update({SLOTS: slots}) or head(environ, start)
        connection, transport = open_connection(worker)
        connection.data_received(body * 5)
        while transport.written.count(status.encode()) < 5:
            await asyncio.sleep(0)
        transport.abort()
        connection.eof_received()
        await connection._task

    asyncio.run(run())
    assert len(found) >= 4
    assert all((seconds > 0) is rests for seconds in found)


def test_a_request_evicted_in_the_queue_gets_an_answer():
    async def run():
        worker = make_worker()
        connection, transport = open_connection(worker)
        connection.data_received(GET)
        await asyncio.sleep(0.01)
        await worker.turn.acquire()
        connection.data_received(GET)
        await asyncio.sleep(0.01)
        assert connection.state == "queued"
        connection.evict()
        await asyncio.sleep(0.01)
        connection.eof_received()
        await connection._task
        return transport.written

    assert asyncio.run(run()).count(b"HTTP/1.1 408 ") == 2


def test_a_file_is_read_in_few_pieces():
    """Threads that read many small ones would leave the event loop no time."""
    content, reads = bytes(range(256)) * 10_000, []

    class File(io.BytesIO):
        def read(self, size=-1):
            reads.append(size)
            return super().read(size)

    def wsgi(environ, start_response):
        start_response("200 OK", [("Content-Length", str(len(content)))])
        return environ["wsgi.file_wrapper"](File(content), 8192)

    async def run():
        worker = make_worker()
        worker.pool = worker.quick_pool = ThreadPoolExecutor(1)
        worker.wsgi = wsgi
        worker.head = lambda *_: None
        connection, transport = open_connection(worker)
        connection.data_received(GET)
        while len(transport.written) < len(content):
            await asyncio.sleep(0)
        connection.eof_received()
        await connection._task
        return transport.written

    assert asyncio.run(run()).endswith(content)
    assert len(reads) <= 4
