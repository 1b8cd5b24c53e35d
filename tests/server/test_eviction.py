"""What the worker can do to a connection at any moment."""

import asyncio

import pytest

from lone_connection import GET, make_worker, open_connection
from predictor.server.connection import Connection


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
