"""Werkzeug's server in a thread. It can be stopped, so that a notebook can run its cell again."""

from __future__ import annotations

import errno
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from predictor.server.console import url_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

NEXT_PORTS = 20  # ports tried after a taken one; if all are taken, any free port
POLL_S = 0.1  # how soon close() takes effect


class QuietHandler(WSGIRequestHandler):
    """A handler that logs nothing, for an app that logs its requests itself."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Do nothing for a request."""

    def log_error(self, format: str, *args: Any) -> None:
        """Do nothing for a connection without a request."""


class BackgroundServer(ThreadedWSGIServer):
    """Serves in a thread, from its construction until :meth:`close`.

    Attributes:
        url: the URL by which this machine reaches the server.
    """

    def __init__(
        self, app: WSGIApplication, host: str, port: int, *,
        timeout_s: float = 120.0, quiet: bool = False,
    ) -> None:  # fmt: skip
        """Listen on the port, or else on the next free one, and begin to serve. 0: any free port.

        ``timeout_s`` are the seconds without data after which a connection is closed. ``quiet``:
        do not log requests.

        Raises:
            OSError: the server cannot listen on the address.
        """
        self._connections: set[Any] = set()
        base = QuietHandler if quiet else WSGIRequestHandler
        # With a buffer, the timeout applies to each piece of a response, and not to all of it.
        handler = type("Handler", (base,), {"timeout": timeout_s, "wbufsize": 65_536})
        # Pass a socket: given only host and port, werkzeug ends the process if the port is taken.
        with listen(host, port) as listening:
            super().__init__(host, port, app, handler, fd=listening.fileno())
        self.url = url_of(host, self.port)
        self._thread = threading.Thread(
            target=self.serve_forever, args=(POLL_S,), name="server", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving and close all connections."""
        self.shutdown()
        self._thread.join()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection. :meth:`close` closes it even if its thread waits for data."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close the connection after its last request."""
        self._connections.discard(request)
        super().shutdown_request(request)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on the port, or on the next free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, min(port + NEXT_PORTS, 65536)):
        try:
            return socket.create_server((host, candidate), family=family, backlog=128)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return socket.create_server((host, 0), family=family, backlog=128)
