"""One request as it arrives. gunicorn's parser reads its head."""

import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from gunicorn.http import errors  # type: ignore[import-untyped]
from gunicorn.http.body import CHUNK_EXT_RE  # type: ignore[import-untyped]
from gunicorn.http.message import Request  # type: ignore[import-untyped]
from gunicorn.http.unreader import IterUnreader  # type: ignore[import-untyped]

from predictor.errors import BadRequest, HeadTooLarge, TargetTooLong, TooLarge

MALFORMED = (errors.ParseException, errors.NoMoreData, StopIteration)  # of gunicorn's parser
MAX_HEAD = 64 * 1024  # bytes
MAX_CHUNK_LINE = 1024  # bytes
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*(;.*))?", re.DOTALL)
# Headers that an error response needs, also to a head that is incomplete or malformed: which page
# may read it, and its id.
KEPT = [
    re.compile(rb"\n(%s:[ \t]{0,10}[!-~]{1,200}\r\n)" % name, re.I)  # with ^ 20 times slower
    for name in (b"Origin", b"X-Request-ID")
]
# Each chunk takes some 2 µs: without a limit, 20 MB in chunks of one byte would take 40 s. A kB of
# extensions takes 80.
SPARE_CHUNKS, LEAST_CHUNK = 1000, 64
MAX_EXTENSIONS = 64 * 1024  # bytes, of all chunks


class Reception:
    """Takes one request from a buffer.

    Attributes:
        request: gunicorn's parsed head; None until the head is complete.
        body: the decoded body, once the request is whole.
        whole: whether the request has been received to its end.
        max_body: the most bytes of a chunked body.
    """

    def __init__(self, cfg: Any, peer: Any, number: int, max_body: int) -> None:
        """Expect a head, within the limits of ``cfg``, gunicorn's configuration.

        ``number`` is 1 for a connection's first request. The app checks a Content-Length.
        """
        self.request: Any = None
        self.body, self.whole = b"", False
        self._cfg, self._peer, self._number, self.max_body = cfg, peer, number, max_body
        self._searched = 0  # bytes of the buffer in which the head does not end
        self._chunked = False
        self._chunks = self._received = 0  # number of chunks, and of bytes in chunks taken
        self._extensions = 0  # bytes of them that were parsed
        self._decoded = bytearray()
        self._awaited = 0  # bytes of the buffer with which the next chunk can be complete

    def take(self, buffer: bytearray) -> None:
        """Remove from the front of the buffer what can be used of the request.

        Raises:
            BadRequest: the head or a chunk is malformed.
            HeadTooLarge: the head is larger than gunicorn's limits or :data:`MAX_HEAD`.
            TooLarge: a chunked body is too large, or has too many chunks or extensions.
        """
        if self.request is None:
            self._take_head(buffer)
        if self._chunked:
            self._take_chunks(buffer)
        elif self.request is not None and len(buffer) >= (end := self.request.body.reader.length):
            self.body, self.whole = bytes(memoryview(buffer)[:end]), True
            del buffer[:end]

    def placeholder(self, buffer: bytearray) -> Any:
        """Return a request for the answer to a head that is incomplete or cannot be parsed."""
        head = bytes(buffer[:MAX_HEAD]).partition(b"\r\n\r\n")[0] + b"\r\n"
        kept = [found[1] for header in KEPT if (found := header.search(head))]
        rest = b"".join(kept) + b"\r\n"
        with suppress(*MALFORMED):
            return self._parse([head.partition(b"\r\n")[0] + b"\r\n" + rest])
        return self._parse([b"GET / HTTP/1.1\r\n" + rest])

    def _take_head(self, buffer: bytearray) -> None:
        end = buffer.find(b"\r\n\r\n", self._searched)
        self._searched = max(0, len(buffer) - 3)
        if (len(buffer) if end < 0 else end) > MAX_HEAD:
            raise HeadTooLarge(f"The request's head is larger than {MAX_HEAD:,} bytes.")
        if end < 0:
            return
        try:
            self.request = self._parse([bytes(buffer[: end + 4])], self._number)
        except errors.LimitRequestLine as error:
            raise TargetTooLong(f"The request's URL is too long: {error}.") from error
        except errors.LimitRequestHeaders as error:
            raise HeadTooLarge(f"The request's head is too large: {error}.") from error
        except MALFORMED as error:
            raise BadRequest(f"The request's head is malformed: {error}.") from error
        del buffer[: end + 4]
        codings = [v.lower() for name, v in self.request.headers if name == "TRANSFER-ENCODING"]
        self._chunked = bool(codings)
        if codings not in ([], ["chunked"]):
            raise BadRequest("The only Transfer-Encoding that is accepted is chunked.")

    def _parse(self, pieces: Iterable[bytes], number: int = 2) -> Any:
        return Request(self._cfg, IterUnreader(pieces), self._peer, number)

    def _take_chunks(self, buffer: bytearray) -> None:
        """Decode complete chunks: hexadecimal size, CRLF, data, CRLF. The last has size 0."""
        # To parse a long line again for each packet of its chunk would take 0.13 ms each time. The
        # connection may lower max_body after the line was parsed.
        if len(buffer) < min(self._awaited, self.max_body):
            return
        chunk = self._awaited = 0
        while (line := buffer.find(b"\r\n", chunk, chunk + MAX_CHUNK_LINE)) >= 0:
            found = CHUNK_LINE.fullmatch(buffer, chunk, line)
            if found is None or not self._accepts(found[2]):
                raise BadRequest("A chunk of the body has a malformed size or extension.")
            end = line + 2 + (size := int(found[1], 16))
            self._check_size(chunk, size)
            if size == 0 or len(buffer) < end + 2:
                self._awaited = end + 2 - chunk
                break
            if buffer[end : end + 2] != b"\r\n":
                raise BadRequest("A chunk of the body is longer than it says.")
            self._decoded += memoryview(buffer)[line + 2 : end]
            self._chunks += 1
            chunk = end + 2
        if line < 0 and len(buffer) - chunk >= MAX_CHUNK_LINE:
            raise BadRequest("A chunk of the body has no end of line.")
        self._received += chunk
        del buffer[:chunk]
        if line >= 0 and size == 0:
            self._take_trailers(buffer, line - chunk)

    def _accepts(self, extension: bytes | None) -> bool:
        """Return whether this is no chunk extension, or a valid one."""
        if extension is None:
            return True
        self._extensions += len(extension)
        if self._extensions > MAX_EXTENSIONS:
            raise TooLarge("The extensions of the body's chunks are too long. Send none.")
        return CHUNK_EXT_RE.fullmatch(extension) is not None

    def _check_size(self, taken: int, size: int) -> None:
        received = self._received + taken
        if self._chunks > SPARE_CHUNKS + received / LEAST_CHUNK:
            raise TooLarge("The body's chunks are too small. Send larger chunks.")
        if len(self._decoded) + size > self.max_body or received > self.max_body + MAX_HEAD:
            raise TooLarge(
                f"The body is larger than {self.max_body:,} bytes. The setting"
                " PREDICTOR_MAX_UPLOAD_BYTES raises the limit for photos."
            )

    def _take_trailers(self, buffer: bytearray, line: int) -> None:
        """Check the trailers, if any, which follow the line of the last chunk, and drop them."""
        if (end := buffer.find(b"\r\n\r\n", line)) < 0:
            if len(buffer) - line > MAX_CHUNK_LINE:
                raise BadRequest("The body's trailers are too long.")
            return
        try:
            if end > line:
                self.request.parse_headers(bytes(buffer[line + 2 : end]), from_trailer=True)
        except errors.ParseException as error:
            raise BadRequest(f"The body's trailers are malformed: {error}.") from error
        self.body, self.whole = bytes(self._decoded), True
        del buffer[: end + 4]
