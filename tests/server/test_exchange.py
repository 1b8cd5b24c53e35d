"""One request and its response: what is freed, announced and read."""

import asyncio
import gc
import io
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from lone_connection import GET, head, make_worker, open_connection
from predictor.engine.admission import Slots
from predictor.environ import PLACE
from predictor.server.queues import Queue


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
        worker.head = lambda environ, start: environ.update({PLACE: slots}) or head(environ, start)
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


def test_a_request_that_never_became_whole_keeps_no_transport():
    """Over TLS, each would keep its buffers until Python collects its garbage."""

    async def run():
        connection, transport = open_connection(make_worker())
        lost = weakref.ref(transport)
        connection.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
        await asyncio.sleep(0.01)
        left = connection._departure.left
        connection.connection_lost(None)
        await connection._task
        del connection, transport
        await asyncio.sleep(0)
        return lost(), left.done()

    gc.disable()
    try:
        assert asyncio.run(run()) == (None, True)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("method", "status", "refused"),
    [("POST", 503, True), ("GET", 503, False), ("HEAD", 503, False), ("POST", 404, False)],
)
@pytest.mark.parametrize("from_head", [True, False])
def test_only_refused_work_counts_as_refused(method, status, refused, from_head):
    """A probe of a loading server also gets 503."""

    async def run():
        worker, found = make_worker(), []
        worker.queues.after = lambda _, refused: found.append(refused) or Queue()
        worker.wsgi = lambda _, start: start(f"{status} x", [("Content-Length", "0")]) and [b""]
        worker.head = worker.wsgi if from_head else lambda *_: None
        worker.quick_pool = None  # the loop's own
        connection, _ = open_connection(worker)
        connection.data_received(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        await asyncio.sleep(0.01)
        connection.eof_received()
        await connection._task
        return found

    assert asyncio.run(run()) == [refused]


@pytest.mark.parametrize(
    ("sent", "closes"),
    [("TE, close", True), ("Close", True), ("x\r\nConnection: close", True), ("disclosed", False)],
)
def test_client_may_ask_for_the_close_among_other_options(sent, closes):
    async def run():
        connection, transport = open_connection(make_worker())
        connection.data_received(
            GET.replace(b"\r\n\r\n", f"\r\nConnection: {sent}\r\n\r\n".encode())
        )
        await asyncio.sleep(0.01)
        connection.eof_received()
        await connection._task
        return transport.written

    assert (b"Connection: close" in asyncio.run(run())) == closes


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


def test_a_request_that_arrives_during_a_shutdown_has_the_workers_time():
    async def run():
        worker = make_worker()
        connection, transport = open_connection(worker)
        connection.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
        await asyncio.sleep(0.01)
        worker.alive, left = False, []
        for worker.drain_s in (30, 0.01):
            connection.drain()
            left.append(connection._timeout.when() - worker.loop.time())
        async with asyncio.timeout(10):
            while b" 408 " not in transport.written:
                await asyncio.sleep(0)
        connection.connection_lost(None)
        await connection._task
        return left

    long, short = asyncio.run(run())
    assert 29 < long <= 30
    assert short <= 0.01
