"""A load generator that leaves the processors to the server. Prints JSON.

``python -m benchmarks.load HOST PORT FOLDER SECONDS closed CLIENTS`` or ``… open RATE``

Requests are prepared once and sent over kept connections; an answer is read and thrown away.
"""

from __future__ import annotations

import asyncio
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
    """What became of the requests; latencies in seconds."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def add(self, status: int, seconds: float) -> None:
        """Count one answer."""
        self.statuses[status] += 1
        (self.answered if status == 200 else self.refused).append(seconds)


class Connection:
    """One kept connection."""

    def __init__(self, host: str, port: int) -> None:
        """Nothing is opened before the first request."""
        self._address = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> int:
        """Send one request; its status once the whole answer is there, 0 if it broke off."""
        kept = self._streams is not None
        try:
            return await self._ask(request)
        except (OSError, EOFError):  # IncompleteReadError is an EOFError
            self.close()
            # A kept connection may have been closed by the server just now: once more, anew.
            return await self.ask(request) if kept else 0

    async def _ask(self, request: bytes) -> int:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        if b"connection: close" in head:
            self.close()
        return int(head.split()[1])

    def close(self) -> None:
        """Close; the next request opens anew."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


def prepare(host: str, folder: Path) -> list[bytes]:
    """Every photo of the folder as a whole HTTP request."""
    head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/jpeg\r\n"
    photos = [path.read_bytes() for path in sorted(folder.iterdir())]
    return [f"{head}Content-Length: {len(photo)}\r\n\r\n".encode() + photo for photo in photos]


async def closed(
    host: str, port: int, requests: list[bytes], seconds: float, clients: int
) -> Tally:
    """Clients that ask again as soon as they are answered."""
    tally, end = Tally(), perf_counter() + seconds

    async def client(number: int) -> None:
        connection, photos = Connection(host, port), cycle(requests[number:] + requests[:number])
        while perf_counter() < end:
            start = perf_counter()
            tally.add(await connection.ask(next(photos)), perf_counter() - start)
        connection.close()

    await asyncio.gather(*(client(i % len(requests)) for i in range(clients)))
    return tally


async def opened(host: str, port: int, requests: list[bytes], seconds: float, rate: float) -> Tally:
    """Requests that come at a steady rate, however slowly they are answered."""
    tally, photos, idle = Tally(), cycle(requests), [Connection(host, port)]

    async def ask(due: float) -> None:
        connection = idle.pop() if idle else Connection(host, port)
        status = await connection.ask(next(photos))
        tally.add(status, perf_counter() - due)  # from when it was due, not from when it was sent
        idle.append(connection)

    begin, asked = perf_counter(), []
    for number in range(max(1, int(seconds * rate))):
        due = begin + number / rate
        await asyncio.sleep(max(0.0, due - perf_counter()))
        asked.append(asyncio.create_task(ask(due)))
    await asyncio.gather(*asked)
    return tally


def main() -> None:
    """Run one load and print what became of it."""
    host, port, folder, seconds, kind, amount = sys.argv[1:]
    requests, begin = prepare(host, Path(folder)), perf_counter()
    if kind == "closed":
        load = closed(host, int(port), requests, float(seconds), int(amount))
    else:
        load = opened(host, int(port), requests, float(seconds), float(amount))
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
