"""One request and its response, between gunicorn's WSGI classes and the app."""

import os
import re
from collections.abc import Callable
from concurrent.futures import Future
from io import BytesIO
from time import thread_time
from typing import TYPE_CHECKING, Any

from gunicorn.http.wsgi import FileWrapper, create  # type: ignore[import-untyped]

from predictor.environ import ERROR, LEFT, MANAGEMENT, PLACE
from predictor.errors import PredictorError

if TYPE_CHECKING:
    from predictor.server.event_loop import EventLoopWorker

# Bytes of a file that are read at once. In pieces of 8 kB, many threads that read files leave the
# event loop no time.
FILE_PIECE = 1024 * 1024
MAX_CONNECTION = 1000  # characters of Connection that are read; all 64 kB would take 3 ms
CLOSE = re.compile(r"(?i)(?:^|,)[ \t]{0,10}close[ \t]{0,10}(?:,|$)")


class Output(list[bytes]):
    """Collects a response, in the place of the socket to which gunicorn writes."""

    sendall = list.append

    def send(self, _data: bytes) -> None:
        """Ignore gunicorn's ``100 Continue``: the connection sends it after checking the head."""


class Exchange:
    """A request, and its response once the app has been called.

    Attributes:
        body, whole: the body, and whether the request has been received to its end.
        answered: whether the app has answered.
        needs_slot: whether the request needs a slot, once the head has been checked.
        output: the response's pieces; empty if the app failed.
    """

    def __init__(
        self, worker: "EventLoopWorker", request: Any, peer: Any, server: Any,
        left: "Future[None]",
    ) -> None:  # fmt: skip
        """Create the environ. ``peer`` and ``server`` are the addresses of both ends."""
        self.body, self.whole = b"", False
        self.answered, self.needs_slot, self.output = False, False, Output()
        self._worker, self._spent_s = worker, 0.0
        root, path = _root(request), request.path
        if not (path.startswith(root) and f"{path}/".startswith(f"{root.rstrip('/')}/")):
            request.path = root + path  # a probe, for example; gunicorn would fail, or cut a word
        self._response, self._environ = create(request, self.output, peer, server, worker.cfg)
        # Kept here, because `run` clears the environ.
        self._is_probe = self._environ["REQUEST_METHOD"] in ("GET", "HEAD")
        self._environ[LEFT] = left
        self._environ[MANAGEMENT] = server[:2] == worker.management_bind
        self._environ["wsgi.file_wrapper"] = lambda file, _size=0: FileWrapper(file, FILE_PIECE)
        connection = [value for name, value in request.headers if name == "CONNECTION"]
        # gunicorn reads only a header that is "close" and nothing else.
        self._closes = bool(CLOSE.search(",".join(connection)[:MAX_CONNECTION]))
        expect = self._environ.get("HTTP_EXPECT", "").lower()  # two lines are joined by a comma
        self.expects_continue = expect.startswith("100-continue") and request.version >= (1, 1)

    @property
    def must_close(self) -> bool:
        """Whether the connection must be closed after the response."""
        return bool(self._response.should_close())

    @property
    def is_overload(self) -> bool:
        """Whether a request was refused that the server could answer if it had less to do."""
        return bool(self._response.status_code == 503 and not self._is_probe)

    @property
    def spent_s(self) -> float:
        """Seconds of a processor that the app took; 0 if the model ran: it has its own queue."""
        ran = self.needs_slot and (self._response.status_code or 500) < 400
        return 0.0 if ran else self._spent_s

    def answer_head(self, close: bool) -> bool:
        """Let the app answer from the head. Return False if it needs the body."""
        answered = self._call(self._worker.head, close)
        self.needs_slot = PLACE in self._environ
        return answered

    def refuse(self, error: PredictorError, close: bool = True) -> None:
        """Answer with an error."""
        self.body = b""
        self._environ[ERROR] = error
        self.answer_head(close)

    def take_slot(self) -> None:
        """Take the slot that the request needs; raise the error for the client if there is none."""
        if self.needs_slot:
            self._environ[PLACE].take()

    def run(self) -> None:
        """Call the app with the body, in a thread, and give back the slot."""
        self.body, self._environ["wsgi.input"] = b"", BytesIO(self.body)
        try:
            self._call(self._worker.wsgi, close=not self._worker.alive)
        finally:
            if self.needs_slot:
                self._environ[PLACE].release()
            self._environ.clear()  # frees the body before the response is sent

    def _call(self, app: Callable[..., Any], close: bool) -> bool:
        self._response.must_close = close or self._closes or not self._worker.cfg.keepalive
        began = thread_time()
        try:
            if (pieces := app(self._environ, self._response.start_response)) is None:
                return False
            self.answered = True
            for piece in pieces:
                self._response.write(piece)
            self._response.close()
            if hasattr(pieces, "close"):
                pieces.close()
        except Exception:
            self._worker.log.exception("The app failed to answer a request.")
            self.output.clear()
            self.answered = True
        finally:
            self._spent_s += thread_time() - began
        return True


def _root(request: Any) -> str:
    """Return the path prefix that a proxy or the environment names, as gunicorn reads it."""
    named = (value for name, value in request.headers if name == "SCRIPT_NAME")
    return next(named, os.environ.get("SCRIPT_NAME", ""))
