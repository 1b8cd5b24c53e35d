"""Werkzeug's server in a thread of its own, which can be stopped: a notebook runs a cell again."""

from __future__ import annotations

import errno
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

NEXT_PORTS = 20  # after them, any that is free
POLL_S = 0.1  # how soon it notices that it should stop


class QuietHandler(WSGIRequestHandler):
    """For an app that logs its requests itself."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""

    def log_error(self, format: str, *args: Any) -> None:
        """Nor of a connection on which nothing was asked."""


class BackgroundServer(ThreadedWSGIServer):
    """Serves from its construction until it is closed.

    Attributes:
        url: the address under which this machine reaches it.
    """

    def __init__(
        self,
        app: WSGIApplication,
        host: str,
        port: int,
        *,
        timeout_s: float = 120.0,
        quiet: bool = False,
    ) -> None:
        """Listen, and begin to serve.

        Args:
            app: what answers.
            host: the address to listen on.
            port: where to listen; when it is taken, the next that is free. 0: any.
            timeout_s: how long a client may be silent before its connection is closed.
            quiet: whether no line is logged for a request.

        Raises:
            OSError: nobody can listen there.
        """
        self._connections: set[Any] = set()
        base = QuietHandler if quiet else WSGIRequestHandler
        # Buffered, an answer is sent piece by piece, each within the time, and not all of it.
        handler = type("Handler", (base,), {"timeout": timeout_s, "wbufsize": 65_536})
        # Werkzeug itself ends the process when a port is taken.
        with listen(host, port) as listening:
            super().__init__(host, port, app, handler, fd=listening.fileno())
        reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        self.url = (
            f"http://[{reached}]:{self.port}" if ":" in host else f"http://{reached}:{self.port}"
        )
        self._thread = threading.Thread(
            target=self.serve_forever, args=(POLL_S,), name="server", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Answer nobody any more, not on connections that are open either."""
        self.shutdown()
        self._thread.join()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, to close it whatever its thread waits for."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget it."""
        self._connections.discard(request)
        super().shutdown_request(request)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at the port, or at the next one that is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, min(port + NEXT_PORTS, 65536)):
        try:
            return socket.create_server((host, candidate), family=family, backlog=128)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return socket.create_server((host, 0), family=family, backlog=128)
