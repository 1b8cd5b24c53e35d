"""The received bytes of one request, and the reader from which gunicorn's parser takes them.

The worker's event loop adds the bytes, so a slow client costs a buffer and not a thread.
"""

import re
from typing import Any

from gunicorn.http.unreader import SocketUnreader  # type: ignore[import-untyped]

from predictor.errors import BadRequest, RequestError, TooLarge

MAX_HEAD = 64 * 1024  # bytes; gunicorn gets a longer head, and refuses it
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*(?=\r\n)", re.IGNORECASE)
ANY_LENGTH = re.compile(rb"\r\ncontent-length[ \t]*:", re.IGNORECASE)
ENCODING = re.compile(rb"\r\ntransfer-encoding:[ \t]*([^\r]*)", re.IGNORECASE)
AUTHORIZATION = re.compile(rb"\r\nauthorization:", re.IGNORECASE)
EXPECTS = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*(?=\r\n)", re.IGNORECASE)
REQUEST_LINE = re.compile(rb"([A-Z]+) (/[!-~]*)")
MAX_CHUNK_LINE = 1024
# Each chunk takes the two parsers some 3 µs: 20 MB in chunks of one byte took 10 s.
SPARE_CHUNKS, LEAST_CHUNK = 1000, 64


class Reception:
    """Receives one request.

    Attributes:
        buffer: the bytes received so far.
        deadline: time on the monotonic clock, in seconds, by which the request must be complete.
        whole: whether the request has been received to its end.
        done: whether to stop receiving. Either the request is complete, or gunicorn's parser or
            the app will refuse it (too large, malformed, or without a required token).
        refusal: the error with which the worker must refuse the request, or None.
        expects_continue: whether the client waits for ``100 Continue`` before it sends the body.
    """

    def __init__(self, max_body: int, deadline: float, guarded: bool = False) -> None:
        """Start with an empty buffer.

        Args:
            max_body: maximum bytes of a body.
            deadline: time on the monotonic clock, in seconds.
            guarded: whether a token is required.
        """
        self.buffer = bytearray()
        self.deadline = deadline
        self.whole = self.done = False
        self.expects_continue = False
        self.refusal: RequestError | None = None
        self._max_body, self._guarded = max_body, guarded
        self._end: int | None = None  # offset of the body's end, once it is known
        self._chunks = 0
        self._chunk: int | None = None  # offset of the next chunk, in a chunked body

    @property
    def method_and_path(self) -> tuple[str, str]:
        """The request's method and path; ``GET /`` if its first line is not HTTP."""
        found = REQUEST_LINE.match(self.buffer)
        return (found[1].decode(), found[2].decode()) if found else ("GET", "/")

    def feed(self, data: bytes) -> None:
        """Add received bytes, and update the attributes."""
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
            del self.buffer[slice(*expects.span())]  # otherwise gunicorn would send a second 100
            body -= len(expects[0])
        has_no_token = self._guarded and AUTHORIZATION.search(head) is None
        unclear = len(lengths) + len(codings) > 1 or (codings and not chunked)
        # If gunicorn found a later end than this class, a gunicorn thread would wait for the rest.
        if unclear or len(lengths) < len(ANY_LENGTH.findall(head)):
            self.refusal = BadRequest("The request's headers do not say clearly where it ends.")
        elif has_no_token or length > self._max_body:
            self.done = True
        elif chunked:
            self._chunk = body
        else:
            self._end = body + length

    def _skip_chunks(self) -> None:
        """Go from chunk to chunk: hexadecimal size, CRLF, data, CRLF."""
        assert self._chunk is not None
        while self._end is None and (line := self.buffer.find(b"\r\n", self._chunk)) >= 0:
            try:
                size = int(self.buffer[self._chunk : line].partition(b";")[0], 16)
            except ValueError:
                self.done = True
                return
            if size <= 0:  # trailers, if any, and an empty line follow the last chunk
                end = self.buffer.find(b"\r\n\r\n", line)
                self._end = end + 4 if end >= 0 else None
                break
            self._chunk = line + 2 + size + 2
            self._chunks += 1
        if self._chunks > SPARE_CHUNKS + len(self.buffer) / LEAST_CHUNK:
            self.refusal = TooLarge("The body's chunks are too small. Send larger chunks.")
        overdue = len(self.buffer) - self._chunk > MAX_CHUNK_LINE
        if self._end is None and overdue:
            self.refusal = self.refusal or BadRequest("The body's chunks are malformed.")
        elif self._end is None and len(self.buffer) > self._max_body + MAX_HEAD:
            self.done = True


class BufferedUnreader(SocketUnreader):  # type: ignore[misc]
    """Gives gunicorn's parser first the received bytes, piece by piece, then those of the socket.

    gunicorn's own unreader could hold the received bytes, but each read would copy all the rest.
    """

    def __init__(self, sock: Any) -> None:
        """Start with an empty buffer."""
        super().__init__(sock)
        self._received = memoryview(b"")
        self.whole = True

    def put(self, data: bytearray, whole: bool) -> None:
        """Set the received bytes; ``whole`` says whether they are a complete request."""
        self._received, self.whole = memoryview(data), whole

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return the next piece."""
        if not self._received:
            more: bytes = super().chunk(size_hint)
            return more
        size = max(self.mxchunk, min(size_hint or 0, self.max_body_chunk))
        piece, self._received = bytes(self._received[:size]), self._received[size:]
        return piece

    def take_rest(self) -> bytes:
        """Remove and return the unread bytes, which begin the next request."""
        rest: bytes = self.take_buffered() + bytes(self._received)
        self._received = memoryview(b"")
        return rest
