"""A connection without a server, and a transport that takes all at once."""

import asyncio
import logging
from types import SimpleNamespace

from gunicorn.config import Config

from predictor.server.connection import Connection
from predictor.server.departure import HalfOpen
from predictor.server.queues import Queues

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


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
        alive=True, connections=set(), evicted=set(), held=0, queues=Queues(),
        head=head, management_bind=(), log=logging.getLogger(), make_room=lambda: None, nr=0,
        note_freed=lambda: None, drain_s=5, half_open=HalfOpen(lambda: 64),
    )  # fmt: skip


def open_connection(worker):
    connection, transport = Connection(worker, ("127.0.0.1", 1), ("127.0.0.1", 2)), Transport()
    connection.connection_made(transport)
    return connection, transport
