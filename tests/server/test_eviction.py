"""What the worker can do to a connection at any moment."""

import asyncio
import os
from signal import SIGCONT, SIGSTOP
from time import monotonic
from types import SimpleNamespace

import pytest

from lone_connection import GET, make_worker, open_connection
from predictor.server.connection import Connection
from predictor.server.event_loop import TICK_S, EventLoopWorker
from predictor.server.queues import Queue
from waiting import wait_until


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


@pytest.mark.parametrize("data", [b"", HEAD[:20], HEAD])
def test_a_connection_that_may_not_answer_is_cut_at_once(data, monkeypatch):
    errors = []
    monkeypatch.setattr(Connection, "_cut", lambda self, error: errors.append(error))

    async def run():
        connection, transport = open_connection(make_worker())
        connection.data_received(data)
        await asyncio.sleep(0.01)
        connection.evict(may_answer=False)
        closed = transport.closed
        connection._task.cancel()
        return closed

    assert asyncio.run(run()) == (not data)
    assert len(errors) == bool(data)


def test_a_request_evicted_in_the_queue_gets_an_answer():
    async def run():
        worker = make_worker()
        connection, transport = open_connection(worker)
        connection.data_received(GET)
        await asyncio.sleep(0.01)
        connection._queue = Queue()
        await connection._queue._turns.acquire()
        connection.data_received(GET)
        await asyncio.sleep(0.01)
        assert connection.state == "queued"
        connection.evict()
        await asyncio.sleep(0.01)
        connection.eof_received()
        await connection._task
        return transport.written

    assert asyncio.run(run()).count(b"HTTP/1.1 408 ") == 2


def test_clients_that_do_not_read_make_room_before_an_upload_ends():
    """A file of 1.7 MB costs its client 70 bytes; an upload has sent what it holds."""
    worker, now = EventLoopWorker.__new__(EventLoopWorker), monotonic()
    worker.connections, worker.evicted, worker._max_held = set(), set(), 10_000_000

    class Held(SimpleNamespace):
        __hash__ = object.__hash__

        def evict(self, may_answer):
            worker.held -= self.held

    upload = Held(state="receiving", held=4_000_000, since=now - 60)
    unread = [Held(state="sending", held=1_700_000, since=now - n) for n in range(4)]
    worker.connections |= {upload, *unread}
    worker.held = sum(connection.held for connection in worker.connections)
    worker.make_room()
    assert worker.evicted == {unread[3]}
    assert worker.connections == {upload, *unread[:3]}


def test_sigterm_answers_queued_photos_beside_more_clients_than_are_held(
    start_toy, connect, coffee
):
    server = start_toy("--worker-connections", "300", "--threads", "8").wait_until_ready()
    os.kill(server.worker, SIGSTOP)  # so that the kernel queues connections
    stopped = monotonic()
    photo = HEAD.replace(b"500", b"%d" % len(coffee)) + coffee
    photos = [connect(server, photo) for _ in range(5)]
    assert [connect(server, HEAD) for _ in range(400)]
    server.process.terminate()
    wait_until(lambda: "Handling signal: term" in server.log)
    wait_until(lambda: monotonic() > stopped + 2 * TICK_S)  # it notices the signal at once
    os.kill(server.worker, SIGCONT)
    assert {connection.recv(5000)[:13] for connection in photos} == {b"HTTP/1.1 200 "}
    assert server.process.wait(timeout=60) == 0
