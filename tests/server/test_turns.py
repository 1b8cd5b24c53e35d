"""Whose request comes next: new clients first, later requests in turn, refused ones last."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from itertools import pairwise
from time import monotonic

import pytest

from lone_connection import GET, head, make_worker, open_connection
from predictor.engine.admission import Slots
from predictor.environ import PLACE
from predictor.server.connection import NEW_S
from predictor.server.departure import PROBE, Departure
from predictor.server.queues import CHEAP_AT_ONCE, CHEAP_S, REFUSED_REST_S, Queue, Queues


@pytest.mark.parametrize("pipelined", [False, True])
def test_later_requests_are_answered_a_few_in_a_round_and_a_new_client_at_once(pipelined):
    """Otherwise many clients with a cheap request each would delay new ones."""
    counts, new_after = [], []

    async def run():
        worker = make_worker()
        kept = [open_connection(worker) for _ in range(100)]
        for connection, _ in kept:
            connection.data_received(GET * (3 if pipelined else 1))
        for _ in range(10):
            await asyncio.sleep(0)
        for connection, _ in kept:
            connection.data_received(GET)
        new, transport = open_connection(worker)
        new.data_received(GET)
        for _ in range(30):
            counts.append(sum(other.written.count(b"HTTP/1.1") for _, other in kept))
            new_after.append(len(transport.written))
            await asyncio.sleep(0)
        for connection, _ in [*kept, (new, transport)]:
            connection.eof_received()
            connection._transport.abort()

    asyncio.run(run())
    assert any(new_after[:4])
    assert max(after - before for before, after in pairwise(counts)) == CHEAP_AT_ONCE


def test_clients_that_were_silent_are_answered_a_few_in_a_round():
    """A thousand connections, opened slowly, could send their first heads at once."""
    counts = []

    async def run():
        worker = make_worker()
        silent = [open_connection(worker) for _ in range(50)]
        await asyncio.sleep(0)
        for connection, _ in silent:
            connection.since -= 2 * NEW_S
            connection.data_received(GET)
        for _ in range(30):
            counts.append(sum(other.written.count(b"HTTP/1.1") for _, other in silent))
            await asyncio.sleep(0)
        for connection, transport in silent:
            connection.eof_received()
            transport.abort()
            connection._task.cancel()

    asyncio.run(run())
    assert max(after - before for before, after in pairwise(counts)) == CHEAP_AT_ONCE


@pytest.mark.parametrize(
    ("leaves", "answers"),
    [("lost", b""), ("closed", PROBE), ("half-closed", PROBE + b"HTTP/1.1 408 ")],
)
def test_a_client_that_leaves_the_queue_is_not_answered(leaves, answers, monkeypatch):
    """Clients that came and left, 220 in a second, made kept connections wait for 10 s."""
    monkeypatch.setattr(Departure, "_still_reads", lambda _: leaves == "half-closed")

    async def run():
        worker = make_worker()
        async with AsyncExitStack() as held:
            for _ in range(CHEAP_AT_ONCE):
                await held.enter_async_context(worker.queues.cheap._turns)
            connection, transport = open_connection(worker)
            connection.data_received(GET * 2)
            while connection.state != "queued":
                await asyncio.sleep(0)
            first = len(transport.written)
            if leaves == "lost":
                transport.abort()
                connection.connection_lost(None)
            else:
                connection.eof_received()
        await asyncio.wait_for(connection._task, 10)
        return transport.written[first:], worker.nr

    written, requests = asyncio.run(run())
    assert written[: len(PROBE) + 13] == answers
    assert requests == (2 if leaves == "half-closed" else 1)


def test_after_a_later_request_others_have_time():
    pause_s = 0.02

    async def run():
        worker = make_worker()
        worker.queues.after = lambda *_: Queue(least_s=pause_s)
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
        worker.wsgi, worker.queues.after = wsgi, lambda spent_s, _: found.append(spent_s) or Queue()
        worker.head = lambda environ, start: environ.update({PLACE: slots}) or head(environ, start)
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


def test_clients_that_were_refused_begin_a_request_at_intervals():
    """A client that sends again at once would take the processors from the model."""

    async def run():
        queue, began = Queues().after(0.001, refused=True), monotonic()

        async def client():
            for _ in range(5):
                assert await queue.enter(lambda: False)
                queue.rest(0.001)

        await asyncio.gather(*(client() for _ in range(4)))
        return monotonic() - began

    assert asyncio.run(run()) >= 19 * REFUSED_REST_S


def test_a_client_with_cheap_requests_does_not_wait_for_those_with_dear_ones():
    """64 clients with costly requests made a probe wait for 3 s."""

    async def run():
        queues = Queues()
        cheap, dear = (queues.after(spent_s, refused=False) for spent_s in (0.0, 2 * CHEAP_S))
        assert cheap is queues.cheap
        async with dear._turns:
            dear.rest(60)
            return await asyncio.wait_for(cheap.enter(lambda: False), 10)

    assert asyncio.run(run())
