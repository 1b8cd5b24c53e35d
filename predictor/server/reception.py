"""One request as it arrives. gunicorn's parsers read its head and its chunks."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from gunicorn.asgi.parser import ParseError, PythonProtocol  # type: ignore[import-untyped]
from gunicorn.http.body import ChunkedReader  # type: ignore[import-untyped]
from gunicorn.http.errors import (  # type: ignore[import-untyped]
    LimitRequestHeaders,
    LimitRequestLine,
    NoMoreData,
    ParseException,
)
from gunicorn.http.message import Request  # type: ignore[import-untyped]
from gunicorn.http.unreader import IterUnreader  # type: ignore[import-untyped]

from predictor.errors import BadRequest, HeadTooLarge, TargetTooLong, TooLarge

MAX_HEAD = 64 * 1024  # bytes
# Each chunk takes the parser some 5 µs: without a limit, 20 MB in chunks of one byte take 100 s.
SPARE_CHUNKS, LEAST_CHUNK = 1000, 64
CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


class Reception:
    """Takes one request from a buffer.

    Attributes:
        request: gunicorn's parsed head; None until the head is complete.
        body: the decoded body, once the request is whole.
        whole: whether the request has been received to its end.
    """

    def __init__(self, cfg: Any, peer: Any, number: int, max_body: int) -> None:
        """Expect a head.

        Args:
            cfg: gunicorn's configuration, which limits the head.
            peer: the client's address.
            number: 1 for a connection's first request.
            max_body: maximum bytes of a chunked body. The app checks a Content-Length.
        """
        self.request: Any = None
        self.body, self.whole = b"", False
        self._cfg, self._peer, self._number, self._max_body = cfg, peer, number, max_body
        self._searched = 0  # bytes of the buffer in which the head does not end
        self._chunks: Any = None  # the parser of a chunked body
        self._count = self._received = 0  # of its chunks and bytes
        self._decoded = bytearray()

    def take(self, buffer: bytearray) -> None:
        """Remove from the front of the buffer what can be used of the request.

        Raises:
            BadRequest: the head or a chunk is malformed.
            HeadTooLarge: the head is larger than gunicorn's limits or :data:`MAX_HEAD`.
            TooLarge: a chunked body is too large, or has too many chunks.
        """
        if self.request is None:
            self._take_head(buffer)
        if self._chunks is not None:
            self._take_chunks(buffer)
        elif self.request is not None and len(buffer) >= (end := self.request.body.reader.length):
            self.body, self.whole = bytes(memoryview(buffer)[:end]), True
            del buffer[:end]

    def placeholder(self, buffer: bytearray) -> Any:
        """Return a request for the answer to a head that is incomplete or cannot be parsed."""
        first = bytes(buffer[:MAX_HEAD]).partition(b"\r\n")[0]
        with suppress(ParseException, NoMoreData, StopIteration):
            return self._parse([first + b"\r\n\r\n"])
        return self._parse([b"GET / HTTP/1.1\r\n\r\n"])

    def _take_head(self, buffer: bytearray) -> None:
        end = buffer.find(b"\r\n\r\n", self._searched)
        self._searched = max(0, len(buffer) - 3)
        if (len(buffer) if end < 0 else end) > MAX_HEAD:
            raise HeadTooLarge(f"The request's head is larger than {MAX_HEAD:,} bytes.")
        if end < 0:
            return
        try:
            self.request = self._parse([bytes(buffer[: end + 4])], self._number)
        except LimitRequestLine as error:
            raise TargetTooLong(f"The request's URL is too long: {error}.") from error
        except LimitRequestHeaders as error:
            raise HeadTooLarge(f"The request's head is too large: {error}.") from error
        except (ParseException, NoMoreData, StopIteration) as error:
            raise BadRequest(f"The request's head is malformed: {error}.") from error
        del buffer[: end + 4]
        if isinstance(self.request.body.reader, ChunkedReader):
            self._chunks = PythonProtocol(on_body=self._add)
            self._chunks.feed(CHUNKED)

    def _parse(self, pieces: Iterable[bytes], number: int = 2) -> Any:
        return Request(self._cfg, IterUnreader(pieces), self._peer, number)

    def _take_chunks(self, buffer: bytearray) -> None:
        self._received += len(buffer)
        try:
            self._chunks.feed(buffer)
        except ParseError as error:
            raise BadRequest(f"The body's chunks are malformed: {error}.") from error
        buffer.clear()
        if self._chunks.is_complete:
            self.body, self.whole = bytes(self._decoded), True
            buffer += self._chunks.remaining()
        elif self._received > self._max_body + MAX_HEAD:
            raise TooLarge(f"The body is larger than {self._max_body:,} bytes.")

    def _add(self, data: bytes) -> None:
        """Add the data of a chunk, or a part of it."""
        self._count += 1
        self._decoded += data
        if self._count > SPARE_CHUNKS + self._received / LEAST_CHUNK:
            raise TooLarge("The body's chunks are too small. Send larger chunks.")
        if len(self._decoded) > self._max_body:
            raise TooLarge(f"The body is larger than {self._max_body:,} bytes.")
