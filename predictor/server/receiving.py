"""A request is received by the event loop, and given to a thread when it is whole.

gunicorn's threads read from the connection themselves: two hundred clients that send a byte now
and then would hold them all. Here a slow client costs a buffer, never a thread. Over TLS and
HTTP/2 gunicorn receives as it always does; a proxy in front is the better place for both.
"""

from __future__ import annotations

import ctypes
import re
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from math import inf
from selectors import EVENT_READ
from signal import SIGTERM
from socket import SHUT_WR
from time import monotonic
from typing import Any

from gunicorn.http.unreader import SocketUnreader  # type: ignore[import-untyped]
from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

from predictor.server.reload import Handover, lives
from predictor.settings import Settings

CHUNK = 256 * 1024
# gunicorn refuses longer ones; past it, the refusal is left to gunicorn.
MAX_HEAD = 64 * 1024
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*(?=\r\n)", re.IGNORECASE)
ANY_LENGTH = re.compile(rb"\r\ncontent-length[ \t]*:", re.IGNORECASE)
ENCODING = re.compile(rb"\r\ntransfer-encoding:[ \t]*([^\r]*)", re.IGNORECASE)
AUTHORIZATION = re.compile(rb"\r\nauthorization:", re.IGNORECASE)
PATH = re.compile(rb"[A-Z]+ (/[!-~]*)")
EXPECTS = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*(?=\r\n)", re.IGNORECASE)
MAX_CHUNK_LINE = 1024
# Each chunk costs gunicorn's parser and ours some 3 µs: 20 MB of single bytes took 10 s.
SPARE_CHUNKS, LEAST_CHUNK = 1000, 64
REASONS = {
    HTTPStatus.BAD_REQUEST: "bad-request",
    HTTPStatus.REQUEST_TIMEOUT: "request-timeout",
    HTTPStatus.SERVICE_UNAVAILABLE: "overloaded",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too-large",
}
WORDS = {
    HTTPStatus.BAD_REQUEST: "It is not clear where the request ends.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The chunks are too small; send larger ones.",
}
HANDOVER_S = 120.0  # for a successor to load, before its predecessor ends all the same
LIBC = ctypes.CDLL(None)
M_ARENA_MAX = -8  # of glibc's mallopt
TIDY_AFTER_S = 5.0  # of rest; the next request asks the kernel for memory again
LINGER_S = 2.0  # for an answer to arrive before its connection is closed


class Reception:
    """What has come of one request, and whether it is whole.

    It is ``done`` also when waiting for more would be of no use, because it is larger than
    accepted, lacks the token that is wanted, or is malformed: whoever reads it next refuses it
    with the right words.
    """

    def __init__(self, max_body: int, deadline: float, guarded: bool = False) -> None:
        """Nothing has come yet."""
        self.buffer = bytearray()
        self.deadline = deadline  # by the monotonic clock
        self.whole = self.done = False
        self.expects_continue = False
        self._max_body, self._guarded = max_body, guarded
        self._end: int | None = None  # of the body, where its length is known
        self.refusal: HTTPStatus | None = None  # which needs nobody else
        self._chunks = 0
        self._chunk: int | None = None  # where the next chunk begins, where it comes in chunks

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        self.buffer += data
        if self._end is None and self._chunk is None:
            self._read_head()
        if self._chunk is not None:
            self._skip_chunks()
        if self._end is not None:
            self.whole = len(self.buffer) >= self._end
        self.done = self.done or self.whole

    def _read_head(self) -> None:
        body = self.buffer.find(b"\r\n\r\n") + 4
        if body < 4:
            self.done = len(self.buffer) > MAX_HEAD
            return
        head = bytes(self.buffer[: body - 2])
        lengths, codings = LENGTH.findall(head), ENCODING.findall(head)
        chunked = [coding.strip().lower() for coding in codings] == [b"chunked"]
        length = int(lengths[0]) if lengths else 0
        if (expects := EXPECTS.search(head)) is not None:
            self.expects_continue = length <= self._max_body
            del self.buffer[slice(*expects.span())]  # or gunicorn would say it a second time
            body -= len(expects[0])
        unknown = self._guarded and AUTHORIZATION.search(head) is None
        unclear = len(lengths) + len(codings) > 1 or (codings and not chunked)
        # gunicorn may see an end where we see none, and would wait for it with a thread.
        if unclear or len(lengths) < len(ANY_LENGTH.findall(head)):
            self.refusal = HTTPStatus.BAD_REQUEST
        elif unknown or length > self._max_body:
            self.done = True
        elif chunked:
            self._chunk = body
        else:
            self._end = body + length

    def _skip_chunks(self) -> None:
        """Go from chunk to chunk: hexadecimal size, line's end, data, line's end."""
        assert self._chunk is not None
        while self._end is None and (line := self.buffer.find(b"\r\n", self._chunk)) >= 0:
            try:
                size = int(self.buffer[self._chunk : line].partition(b";")[0], 16)
            except ValueError:
                self.done = True
                return
            if size <= 0:  # after the last chunk come trailers, if any, and an empty line
                end = self.buffer.find(b"\r\n\r\n", line)
                self._end = end + 4 if end >= 0 else None
                break
            self._chunk = line + 2 + size + 2
            self._chunks += 1
        if self._chunks > SPARE_CHUNKS + len(self.buffer) / LEAST_CHUNK:
            self.refusal = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        overdue = len(self.buffer) - self._chunk > MAX_CHUNK_LINE
        if self._end is None and overdue:
            self.refusal = self.refusal or HTTPStatus.BAD_REQUEST
        elif self._end is None and len(self.buffer) > self._max_body + MAX_HEAD:
            self.done = True


class ReceivedFirst(SocketUnreader):  # type: ignore[misc]
    """Where gunicorn's parser reads: what was received, piece by piece, and then the socket.

    gunicorn's own could be given it back at once, and would copy all the rest at every read.
    """

    def __init__(self, sock: Any) -> None:
        """Nothing was received yet."""
        super().__init__(sock)
        self._received = memoryview(b"")
        self.whole = True

    def put(self, data: bytearray, whole: bool) -> None:
        """Have this read next."""
        self._received, self.whole = memoryview(data), whole

    def chunk(self, size_hint: int | None = None) -> bytes:
        """The next piece."""
        if not self._received:
            more: bytes = super().chunk(size_hint)
            return more
        size = max(self.mxchunk, min(size_hint or 0, self.max_body_chunk))
        piece, self._received = bytes(self._received[:size]), self._received[size:]
        return piece

    def take_rest(self) -> bytes:
        """What was received and not read: the beginning of the next request."""
        rest: bytes = self.take_buffered() + bytes(self._received)
        self._received = memoryview(b"")
        return rest


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, with receptions before its threads.

    ``gunicorn.conf.py`` tells it its seat, and who was there before.
    """

    handover: Handover
    _retires_by: float | None
    seat: int
    predecessor: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Read the limits; everything else is gunicorn's."""
        super().__init__(*args, **kwargs)
        settings = Settings.from_env()
        self._max_body = settings.max_upload_bytes
        self._timeout_s = settings.receive_timeout_s
        self._room = settings.max_receive_bytes
        self._guarded = bool(settings.tokens or settings.tokens_file)
        self._receptions: dict[TConn, Reception] = {}  # the oldest first
        self._received = 0  # bytes in all of them
        self._told, self._retires_by = 0, None  # SIGTERMs; the end of waiting for a successor
        self._tidy_at = monotonic() + TIDY_AFTER_S
        self._leaving: dict[TConn, float] = {}  # answered, to be closed at the latest then

    def init_process(self) -> None:
        """With an arena for every thread, each would keep what its largest photo took."""
        with suppress(AttributeError):  # not glibc
            LIBC.mallopt(M_ARENA_MAX, 2)
        super().init_process()

    def notify(self) -> None:
        """The heartbeat; a process whose model hangs or has died answers everybody and ends.

        gunicorn starts another in its place.
        """
        super().notify()
        self._give_memory_back()
        self.alive: bool
        if self._retires_by is not None:
            self._look_for_successor(self._retires_by)
        classifier = self._classifier()
        if classifier is None or not self.alive:
            return
        loaded = classifier.loading.done() and classifier.loading.exception() is None
        if loaded and (ailment := classifier.ailment()) is not None:
            self.log.error("This process is replaced. %s", ailment)
            classifier.abandon()
            self.alive = False

    def _give_memory_back(self) -> None:
        """Once after a load: what was freed would stay with the C library, 0.5 GB after a rush."""
        now = monotonic()
        if self.nr_conns > len(self.keepalived_conns):
            self._tidy_at = now + TIDY_AFTER_S
        elif now > self._tidy_at:
            self._tidy_at = inf
            with suppress(AttributeError):  # not glibc
                LIBC.malloc_trim(0)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: finish what is in work, but after a reload not before the successor is ready."""
        self._told += 1
        if self.handover.is_succeeded(self.seat):
            self._retires_by = self._retires_by or monotonic() + HANDOVER_S
        else:
            self._retire()

    def _look_for_successor(self, until: float) -> None:
        """Go when there is one, and stay when it failed; told twice to go, go in any case."""
        if self.handover.is_succeeded(self.seat) and monotonic() < until:
            return
        self._retires_by = None
        if self._told > 1 or monotonic() >= until or not self.handover.failed(self.seat):
            self._retire()
        else:
            self._told = 0
            self.handover.arrive(self.seat)
            self.handover.be_ready(self.seat)
            self.log.error("The reload failed; this process serves on.")

    def _retire(self) -> None:
        if (classifier := self._classifier()) is not None:
            classifier.draining = True
        super().handle_exit(SIGTERM, None)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Leave new connections to the predecessor while there is one and no model here."""
        classifier = self._classifier()
        loading = classifier is not None and not classifier.loading.done()
        if not (enabled and loading and lives(self.predecessor)):
            super().set_accept_enabled(enabled)

    def _classifier(self) -> Any:
        """The app's, once there is one."""
        return getattr(self.wsgi, "extensions", {}).get("classifier")

    def enqueue_req(self, conn: TConn) -> None:
        """Receive the connection's next request; a thread handles it when it is whole."""
        if self.cfg.is_ssl or "h2" in self.cfg.http_protocols:
            super().enqueue_req(conn)
            return
        if not conn.initialized:
            conn.init()
            conn.data_ready = True
            conn.parser.unreader = ReceivedFirst(conn.sock)
        conn.sock.setblocking(False)
        deadline = monotonic() + self._timeout_s
        self._receptions[conn] = Reception(self._max_body, deadline, self._guarded)
        self.poller.register(conn.sock, EVENT_READ, partial(self._on_readable, conn))
        self._take(conn, conn.parser.unreader.take_rest())
        if conn in self._receptions:
            self._on_readable(conn, conn.sock)

    def finish_request(self, conn: TConn, fs: Any) -> None:
        """Show gunicorn what came with the request and belongs to the next one.

        Where there is none, gunicorn would wait for the client to close, and all others with it.
        """
        if isinstance(unreader := getattr(conn.parser, "unreader", None), ReceivedFirst):
            if fs.cancelled() or fs.exception() or not fs.result():
                self._leave(conn)
                return
            unreader.unread(unreader.take_rest())
        super().finish_request(conn, fs)

    def handle_request(self, req: Any, conn: TConn) -> Any:
        """As gunicorn does; but what was not received whole ends its connection."""
        if isinstance(unreader := conn.parser.unreader, ReceivedFirst) and not unreader.whole:
            req.force_close()
            conn.sock.settimeout(LINGER_S)
        return super().handle_request(req, conn)

    def _keepalive_after(self, conn: TConn, keepalive: Any) -> bool:
        """Skip what the app has not read of the body, so that the next request can follow.

        gunicorn skips 64 kB and then closes, unannounced; here the body lies in memory.
        """
        unreader = conn.parser.unreader
        if keepalive and isinstance(unreader, ReceivedFirst) and unreader.whole:
            try:
                limit = self._max_body + MAX_HEAD
                return bool(conn.parser.finish_body(monotonic() + LINGER_S, limit))
            except Exception:  # malformed, which nobody has asked about: the answer is sent
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
        else:  # closed before the request was whole: nobody waits for an answer
            self._forget(conn)
            self._close(conn)

    def _take(self, conn: TConn, data: bytes) -> None:
        """Add to the reception, and end it when it is whole or there is no room."""
        reception = self._receptions[conn]
        self._received -= len(reception.buffer)
        reception.feed(data)
        self._received += len(reception.buffer)
        if reception.refusal:
            self._refuse(conn, reception.refusal, WORDS[reception.refusal])
        elif reception.done:
            self._forget(conn)
            conn.sock.setblocking(True)
            conn.parser.unreader.put(reception.buffer, reception.whole)
            super().enqueue_req(conn)
        elif self._received > self._room:
            self._refuse(conn, HTTPStatus.SERVICE_UNAVAILABLE, "Too much is being received.")
        elif reception.expects_continue:
            reception.expects_continue = False
            self._send(conn, b"HTTP/1.1 100 Continue\r\n\r\n")

    def murder_pending(self) -> None:
        """End the receptions whose time is up, and the oldest when there is no room for others."""
        super().murder_pending()
        now = monotonic()
        for conn in [conn for conn, until in self._leaving.items() if now > until]:
            self._left(conn)
        while self.nr_conns >= self.worker_connections and self.keepalived_conns:
            self.keepalived_conns[0].timeout = now
            self.murder_keepalived()
        for conn, reception in list(self._receptions.items()):
            crowded = self.nr_conns >= self.worker_connections
            silent = not reception.buffer
            # Who has connected just now may have sent: that is seen in a moment.
            ending = not self.alive and now > reception.deadline - self._timeout_s + LINGER_S
            if silent and (ending or crowded or now > reception.deadline):
                self._forget(conn)
                self._close(conn)
            elif crowded or now > reception.deadline:
                self._refuse(conn, HTTPStatus.REQUEST_TIMEOUT, "The request came too slowly.")
            elif self.alive:
                break  # the rest are younger

    def _refuse(self, conn: TConn, status: HTTPStatus, detail: str) -> None:
        """Answer what is not whole, in its protocol's words, and close."""
        from predictor.web.problems import say  # here: the master imports this file, and no web

        found = PATH.match(self._receptions[conn].buffer)
        path = found[1].decode() if found else "/"
        self._forget(conn)
        code = REASONS[status]
        self.log.info("A request from %s is refused: %s", conn.client and conn.client[0], detail)
        self.wsgi.extensions["metrics"].rejected.labels(code).inc()
        problem = {"type": "about:blank", "title": status.phrase, "status": status.value}
        with self.wsgi.app_context():
            response = say({**problem, "code": code, "detail": detail}, path)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {response.mimetype}\r\n"
            f"Content-Length: {response.content_length}\r\n"
            "Retry-After: 5\r\nConnection: close\r\n\r\n"
        )
        self._send(conn, head.encode() + response.get_data())
        self._leave(conn)

    def _forget(self, conn: TConn) -> None:
        self._received -= len(self._receptions.pop(conn).buffer)
        self.poller.unregister(conn.sock)

    def _leave(self, conn: TConn) -> None:
        """Close when the client has read the answer: what it still sends would destroy it."""
        with suppress(OSError):
            conn.sock.shutdown(SHUT_WR)
        conn.sock.setblocking(False)
        self._leaving[conn] = monotonic() + LINGER_S
        self.poller.register(conn.sock, EVENT_READ, partial(self._on_rest, conn))

    def _on_rest(self, conn: TConn, _sock: Any) -> None:
        try:
            ended = not conn.sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            ended = True
        if ended:
            self._left(conn)

    def _left(self, conn: TConn) -> None:
        del self._leaving[conn]
        self.poller.unregister(conn.sock)
        self._close(conn)

    def _close(self, conn: TConn) -> None:
        self.nr_conns -= 1
        conn.close()

    @staticmethod
    def _send(conn: TConn, data: bytes) -> None:
        """A few bytes into an empty buffer; who does not take them is not waited for."""
        with suppress(OSError):
            conn.sock.send(data)
