"""Clients that still send are not ended for the sake of others, or of their own refusal."""

import asyncio
import contextlib
import socket

import pytest

from lone_connection import GET, make_worker, open_connection
from pictures import picture
from predictor.server import connection as module


def test_silent_newcomers_do_not_end_an_upload_that_makes_progress(start_toy):
    server = start_toy("--worker-connections", "10").wait_until_ready()
    photo = picture().ljust(200_000, b"\0")
    with contextlib.ExitStack() as stack:
        upload = stack.enter_context(socket.create_connection(server.address, timeout=60))
        head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
        upload.sendall(head % len(photo) + photo[:100_000])
        assert server.get("/healthz").ok  # accepted later, so the bytes above have been received
        for _ in range(3):
            for _ in range(10):
                stack.enter_context(socket.create_connection(server.address, timeout=60))
            assert server.get("/healthz").ok
        upload.sendall(photo[100_000:])
        assert upload.recv(1000).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("alive", [True, False])
def test_a_refused_client_that_still_sends_is_waited_for_except_at_the_end(monkeypatch, alive):
    monkeypatch.setattr(module, "LINGER_S", 0.2)

    async def run():
        worker = make_worker()
        connection, _ = open_connection(worker)
        connection.data_received(GET.replace(b"Host", b"Connection: close\r\nHost"))
        while connection.state != "leaving":
            await asyncio.sleep(0.01)
        worker.alive = alive
        for _ in range(12):
            connection.data_received(b"x")
            await asyncio.sleep(0.05)
        left = connection._task.done()
        connection.connection_lost(None)
        await connection._task
        return left

    assert asyncio.run(run()) == (not alive)
