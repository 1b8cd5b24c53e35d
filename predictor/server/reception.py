"""One request as it arrives: where its head and its body end.

gunicorn's own parsers read the head and the chunks; this module finds where they end.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any

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
MAX_CHUNK_LINE = 1024  # bytes, with the end of the chunk before it
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;.*)?", re.DOTALL)
# Each chunk takes the two parsers some 3 µs: 20 MB in chunks of one byte took 10 s.
SPARE_CHUNKS, LEAST_CHUNK = 1000, 64
PIECE = 64 * 1024  # bytes given at once to gunicorn's reader of chunks, which copies what is left


class Reception:
    """Receives one request.

    Attributes:
        buffer: the bytes received so far.
        request: gunicorn's parsed head; None until the head is complete.
        whole: whether the request has been received to its end.
    """

    def __init__(self, cfg: Any, peer: Any, number: int, max_body: int) -> None:
        """Start with an empty buffer.

        Args:
            cfg: gunicorn's configuration, which limits the head.
            peer: the client's address.
            number: 1 for a connection's first request.
            max_body: maximum bytes of a chunked body. The app checks a Content-Length.
        """
        self.buffer = bytearray()
        self.request: Any = None
        self.whole = False
        self._cfg, self._peer, self._number, self._max_body = cfg, peer, number, max_body
        self._body = 0  # offset of the body
        self._end: int | None = None  # offset of the body's end, once it is known
        self._chunk: int | None = None  # offset of the next chunk, in a chunked body
        self._chunks = 0

    def feed(self, data: bytes) -> None:
        """Add received bytes.

        Raises:
            BadRequest: the head or the chunks are malformed.
            HeadTooLarge: the head is larger than gunicorn's limits or :data:`MAX_HEAD`.
            TooLarge: a chunked body is too large, or has too many chunks.
        """
        known = max(0, len(self.buffer) - 3)
        self.buffer += data
        if self.request is None:
            self._read_head(known)
        if self._chunk is not None and self._end is None:
            self._skip_chunks(self._chunk)
        self.whole = self._end is not None and len(self.buffer) >= self._end

    def body(self) -> Any:
        """Return the body of a whole request as a file. A malformed chunk raises BadRequest."""
        if self._chunk is None:
            return BytesIO(memoryview(self.buffer)[self._body : self._end])
        try:
            return BytesIO(self.request.body.read())
        except (ParseException, NoMoreData) as error:
            raise BadRequest(f"The body's chunks are malformed: {error}.") from error

    def rest(self) -> bytes:
        """Return the bytes behind a whole request, which begin the next request."""
        return bytes(self.buffer[self._end :])

    def _read_head(self, known: int) -> None:
        end = self.buffer.find(b"\r\n\r\n", known)
        if (len(self.buffer) if end < 0 else end) > MAX_HEAD:
            raise HeadTooLarge(f"The request's head is larger than {MAX_HEAD:,} bytes.")
        if end < 0:
            return
        self._body = end + 4
        try:
            request = self._parse(self._pieces(), self._number)
        except LimitRequestLine as error:
            raise TargetTooLong(f"The request's URL is too long: {error}.") from error
        except LimitRequestHeaders as error:
            raise HeadTooLarge(f"The request's head is too large: {error}.") from error
        except (ParseException, NoMoreData, StopIteration) as error:
            raise BadRequest(f"The request's head is malformed: {error}.") from error
        if isinstance(reader := request.body.reader, ChunkedReader):
            self._chunk = self._body
        else:
            self._end = self._body + reader.length
        self.request = request

    def placeholder(self) -> Any:
        """Return a request for the answer to a head that is incomplete or cannot be parsed."""
        first = bytes(self.buffer[:PIECE]).partition(b"\r\n")[0]
        with suppress(ParseException, NoMoreData, StopIteration):
            return self._parse([first + b"\r\n\r\n"])
        return self._parse([b"GET / HTTP/1.1\r\n\r\n"])

    def _parse(self, pieces: Iterable[bytes], number: int = 2) -> Any:
        return Request(self._cfg, IterUnreader(pieces), self._peer, number)

    def _pieces(self) -> Iterator[bytes]:
        """Yield the head, and later the chunked body, once the request is whole."""
        yield bytes(self.buffer[: self._body])
        for offset in range(self._body, self._end or 0, PIECE):
            yield bytes(self.buffer[offset : min(offset + PIECE, self._end or 0)])

    def _skip_chunks(self, chunk: int) -> None:
        """Go from chunk to chunk: hexadecimal size, CRLF, data, CRLF."""
        while (line := self.buffer.find(b"\r\n", chunk, chunk + MAX_CHUNK_LINE)) >= 0:
            after = self.buffer[chunk - 2 : chunk] == b"\r\n"  # the head or the data before
            if not after or (found := CHUNK_LINE.fullmatch(self.buffer, chunk, line)) is None:
                raise BadRequest("The body's chunks are malformed.")
            if not (size := int(found[1], 16)):  # trailers, if any, and an empty line follow
                end = self.buffer.find(b"\r\n\r\n", line)
                self._end = end + 4 if end >= 0 else None
                break
            chunk = self._chunk = line + 2 + size + 2
            self._chunks += 1
        if self._chunks > SPARE_CHUNKS + len(self.buffer) / LEAST_CHUNK:
            raise TooLarge("The body's chunks are too small. Send larger chunks.")
        if self._end is None and len(self.buffer) - chunk > MAX_CHUNK_LINE:
            raise BadRequest("The body's chunks are malformed.")
        if max(chunk, len(self.buffer)) - self._body > self._max_body + MAX_HEAD:
            raise TooLarge(f"The body is larger than {self._max_body:,} bytes.")
