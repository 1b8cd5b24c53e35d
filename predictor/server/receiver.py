"""gunicorn's threaded worker, changed so that its event loop receives the requests.

In gunicorn, threads read from the connections, so two hundred clients that send a byte now and
then would block all threads. Here a thread gets a request only when the request is complete. With
TLS or HTTP/2, gunicorn's threads still read. To protect them, terminate TLS in a proxy.
"""

from contextlib import suppress
from functools import partial
from selectors import EVENT_READ
from socket import SHUT_WR
from time import monotonic
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

from predictor.errors import Overloaded, PredictorError, RequestTimeout
from predictor.server.reception import MAX_HEAD, BufferedUnreader, Reception
from predictor.settings import current_settings

CHUNK = 256 * 1024
LINGER_S = 2.0  # for the client to read a response before its connection is closed


class ReceivingWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker. A :class:`Reception` collects each request for a thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take the limits from the settings."""
        super().__init__(*args, **kwargs)
        settings = current_settings()
        self.wsgi: Any = None  # the app; gunicorn sets it after it has enabled SIGTERM
        self._max_body = settings.max_upload_bytes
        self._timeout_s = settings.receive_timeout_s
        # A fifth of the largest bodies of all slots (by default 256 MB), but at least one request.
        room = self._max_body * settings.max_in_flight // 5
        self._max_received = max(room, self._max_body + MAX_HEAD)
        self._guarded = bool(settings.all_tokens)
        self._receptions: dict[TConn, Reception] = {}  # the oldest first
        self._received = 0  # bytes in all receptions
        self._leaving: dict[TConn, float] = {}  # answered connection → latest time to close it

    @property
    def service(self) -> Any:
        """The service of the app; None before the app is loaded."""
        return getattr(self.wsgi, "extensions", {}).get("predictor")

    def enqueue_req(self, conn: TConn) -> None:
        """Receive the connection's next request. A thread handles a request once it is complete."""
        if self.cfg.is_ssl or "h2" in self.cfg.http_protocols:
            super().enqueue_req(conn)
            return
        if not conn.initialized:
            conn.init()
            conn.data_ready = True
            conn.parser.unreader = BufferedUnreader(conn.sock)
        conn.sock.setblocking(False)
        deadline = monotonic() + self._timeout_s
        self._receptions[conn] = Reception(self._max_body, deadline, self._guarded)
        self.poller.register(conn.sock, EVENT_READ, partial(self._on_readable, conn))
        self._take(conn, conn.parser.unreader.take_rest())
        if conn in self._receptions:
            self._on_readable(conn, conn.sock)

    def finish_request(self, conn: TConn, fs: Any) -> None:
        """Give gunicorn the bytes that were received after the request.

        Without these bytes, gunicorn would block the event loop until the client closes.
        """
        if isinstance(unreader := getattr(conn.parser, "unreader", None), BufferedUnreader):
            if fs.cancelled() or fs.exception() or not fs.result():
                self._leave(conn)
                return
            unreader.unread(unreader.take_rest())
        super().finish_request(conn, fs)

    def handle_request(self, req: Any, conn: TConn) -> Any:
        """Handle a request. If it is incomplete, close the connection after the response."""
        if isinstance(unreader := conn.parser.unreader, BufferedUnreader) and not unreader.whole:
            req.force_close()
            conn.sock.settimeout(LINGER_S)
        return super().handle_request(req, conn)

    def _keepalive_after(self, conn: TConn, keepalive: Any) -> bool:
        """Skip the unread rest of the body, so that the next request can follow.

        gunicorn skips up to 64 kB and then closes the connection unannounced. Here the whole body
        is in memory, so all of it can be skipped.
        """
        unreader = conn.parser.unreader
        if keepalive and isinstance(unreader, BufferedUnreader) and unreader.whole:
            try:
                limit = self._max_body + MAX_HEAD
                return bool(conn.parser.finish_body(monotonic() + LINGER_S, limit))
            except Exception:  # a malformed rest: the response has been sent
                return False
        return bool(super()._keepalive_after(conn, keepalive))

    def _on_readable(self, conn: TConn, _sock: Any) -> None:
        try:
            data = conn.sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._take(conn, data)
        else:  # closed before the request was complete
            self._forget(conn)
            self._close(conn)

    def _take(self, conn: TConn, data: bytes) -> None:
        """Add received bytes to the connection's request.

        A complete request gets a thread. An invalid one is refused. An unfinished one is refused,
        too, if all unfinished requests together use too much memory.
        """
        reception = self._receptions[conn]
        self._received -= len(reception.buffer)
        reception.feed(data)
        self._received += len(reception.buffer)
        if reception.refusal:
            self._refuse(conn, reception.refusal)
        elif reception.done:
            self._forget(conn)
            conn.sock.setblocking(True)
            conn.parser.unreader.put(reception.buffer, reception.whole)
            super().enqueue_req(conn)
        elif self._received > self._max_received:
            self._refuse(conn, Overloaded("The server is receiving too much. Retry later.", 5))
        elif reception.expects_continue:
            reception.expects_continue = False
            self._send(conn, b"HTTP/1.1 100 Continue\r\n\r\n")

    def murder_pending(self) -> None:
        """End receptions after their deadline. With too many connections, also end the oldest."""
        super().murder_pending()
        now = monotonic()
        for conn in [conn for conn, until in self._leaving.items() if now > until]:
            self._close_left(conn)
        while self.nr_conns >= self.worker_connections and self.keepalived_conns:
            self.keepalived_conns[0].timeout = now
            self.murder_keepalived()
        for conn, reception in list(self._receptions.items()):
            crowded = self.nr_conns >= self.worker_connections
            silent = not reception.buffer
            # A client that has just connected may already have sent data: give it LINGER_S.
            ending = not self.alive and now > reception.deadline - self._timeout_s + LINGER_S
            if silent and (ending or crowded or now > reception.deadline):
                self._forget(conn)
                self._close(conn)
            elif crowded or now > reception.deadline:
                self._refuse(conn, RequestTimeout("The request did not arrive in time."))
            elif self.alive:
                break  # the other receptions are younger

    def _refuse(self, conn: TConn, error: PredictorError) -> None:
        """Send an error for an incomplete request, in its protocol's format, and close."""
        from predictor.web.problems import RequestHead, render_problem  # not in the master

        method, path = self._receptions[conn].method_and_path
        self._forget(conn)
        client = conn.client and conn.client[0]
        self.log.info("A request from %s is refused: %s", client, error)
        self.service.metrics.rejected.labels(error.code).inc()
        with self.wsgi.app_context():
            response = render_problem(error, RequestHead(method, path))
        response.headers["Connection"] = "close"
        head = f"HTTP/1.1 {error.status.value} {error.status.phrase}\r\n{response.headers}"
        self._send(conn, head.encode("latin-1") + response.get_data())
        self._leave(conn)

    def _forget(self, conn: TConn) -> None:
        self._received -= len(self._receptions.pop(conn).buffer)
        self.poller.unregister(conn.sock)

    def _leave(self, conn: TConn) -> None:
        """Close once the client has read the response. Otherwise a reset could discard it."""
        with suppress(OSError):
            conn.sock.shutdown(SHUT_WR)
        conn.sock.setblocking(False)
        self._leaving[conn] = monotonic() + LINGER_S
        self.poller.register(conn.sock, EVENT_READ, partial(self._on_more, conn))

    def _on_more(self, conn: TConn, _sock: Any) -> None:
        try:
            ended = not conn.sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            ended = True
        if ended:
            self._close_left(conn)

    def _close_left(self, conn: TConn) -> None:
        del self._leaving[conn]
        self.poller.unregister(conn.sock)
        self._close(conn)

    def _close(self, conn: TConn) -> None:
        self.nr_conns -= 1
        conn.close()

    @staticmethod
    def _send(conn: TConn, data: bytes) -> None:
        """Send a short response without waiting: the socket's send buffer is empty and holds it."""
        with suppress(OSError):
            conn.sock.send(data)
