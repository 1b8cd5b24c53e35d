"""Generate load with little processor time. Print JSON.

``python -m benchmarks.load HOST PORT FOLDER SECONDS closed CLIENTS`` or ``… open RATE``. The last
arguments may be ``PATH FORM``, see :func:`whole_request`.

The generator prepares the requests once, sends them over persistent connections and discards the
bodies of the responses.
"""

from __future__ import annotations

import asyncio
import base64
import json
import resource
import sys
from collections import Counter
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from time import perf_counter


@dataclass
class Tally:
    """The outcomes of the requests. Latencies are in seconds."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def add(self, status: int, seconds: float) -> None:
        """Count one response."""
        self.statuses[status] += 1
        (self.answered if status == 200 else self.refused).append(seconds)


@dataclass(frozen=True)
class Response:
    """A complete HTTP response. The head is in lower case."""

    status: int
    head: bytes
    body: bytes


async def read_response(reader: asyncio.StreamReader) -> Response:
    """Read one response that has a Content-Length or comes in chunks.

    Raises:
        EOFError: the server closed the connection before the end of the response.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status, body = int(head.split()[1]), b""
    if b"\r\ntransfer-encoding: chunked\r\n" in head:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
    else:
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
    return Response(status, head, body)


class Connection:
    """A persistent connection."""

    def __init__(self, host: str, port: int) -> None:
        """Store the address. The first request opens the connection."""
        self._address = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> int:
        """Send one request and read the response.

        Returns:
            The status, or 0 if the connection failed.
        """
        kept = self._streams is not None
        try:
            return await self._ask(request)
        except (OSError, EOFError):  # IncompleteReadError is an EOFError
            self.close()
            # The server may have just closed an idle connection: retry once, on a new one.
            return await self.ask(request) if kept else 0

    async def _ask(self, request: bytes) -> int:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(request)
        response = await read_response(reader)
        if b"connection: close" in response.head:
            self.close()
        return response.status

    def close(self) -> None:
        """Close the connection. The next request opens a new one."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


def prepare(
    host: str, folder: Path, path: str = "/predict", form: str = "image/jpeg"
) -> list[bytes]:
    """Return one whole HTTP request for each photo in the folder."""
    photos = sorted(folder.iterdir())
    return [whole_request(host, photo.read_bytes(), path, form) for photo in photos]


def whole_request(host: str, photo: bytes, path: str, form: str) -> bytes:
    """Return the bytes of an HTTP request.

    Args:
        host: the value of the header ``Host``.
        photo: a JPEG.
        path: where the server takes photos.
        form: the body's type: ``image/jpeg``, the photo itself; ``application/json FIELD``, in
            base64; or ``multipart/form-data FIELD``.
    """
    kind, _, field = form.partition(" ")
    body = photo
    if kind == "application/json":
        body = json.dumps({field: base64.b64encode(photo).decode()}).encode()
    elif kind == "multipart/form-data":
        kind += "; boundary=photo"
        named = f'Content-Disposition: form-data; name="{field}"; filename="photo.jpg"'
        part = f"--photo\r\n{named}\r\nContent-Type: image/jpeg\r\n\r\n"
        body = part.encode() + photo + b"\r\n--photo--\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def closed_loop(
    host: str, port: int, requests: list[bytes], seconds: float, clients: int
) -> Tally:
    """Run clients. Each sends its next request as soon as the previous one is answered."""
    tally, end = Tally(), perf_counter() + seconds

    async def client(number: int) -> None:
        connection, photos = Connection(host, port), cycle(requests[number:] + requests[:number])
        while perf_counter() < end:
            start = perf_counter()
            tally.add(await connection.ask(next(photos)), perf_counter() - start)
        connection.close()

    await asyncio.gather(*(client(i % len(requests)) for i in range(clients)))
    return tally


async def open_loop(
    host: str, port: int, requests: list[bytes], seconds: float, rate: float
) -> Tally:
    """Send requests at a steady rate, however slowly the server answers them."""
    tally, photos, idle = Tally(), cycle(requests), [Connection(host, port)]

    async def ask(due: float) -> None:
        connection = idle.pop() if idle else Connection(host, port)
        status = await connection.ask(next(photos))
        tally.add(status, perf_counter() - due)  # since the request was due, not since it was sent
        idle.append(connection)

    begin, asked = perf_counter(), []
    for number in range(max(1, int(seconds * rate))):
        due = begin + number / rate
        await asyncio.sleep(max(0.0, due - perf_counter()))
        asked.append(asyncio.create_task(ask(due)))
    await asyncio.gather(*asked)
    return tally


def main() -> None:
    """Run one load and print its outcomes."""
    host, port, folder, seconds, kind, amount, *where = sys.argv[1:]
    requests, begin = prepare(host, Path(folder), *where), perf_counter()
    if kind == "closed":
        load = closed_loop(host, int(port), requests, float(seconds), int(amount))
    else:
        load = open_loop(host, int(port), requests, float(seconds), float(amount))
    tally = asyncio.run(load)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    report = {
        "seconds": perf_counter() - begin,
        "answered": tally.answered,
        "refused": tally.refused,
        "statuses": tally.statuses,
        "generator_cpu_s": usage.ru_utime + usage.ru_stime,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
