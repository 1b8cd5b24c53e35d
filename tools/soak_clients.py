"""The clients of the soak run (good, bad, slow and rude), and the ledger of their requests."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from PIL import Image

from benchmarks.load import read_response

BURST = 100  # more than the threads of the server
PATIENCE_S = 60.0  # after this time a request counts as not answered
RIGHT, REFUSED, LEFT, CLOSED = "answered right", "refused", "client left", "server closed"
WRONG, SILENT = "WRONG", "NO ANSWER"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Answer:
    """A response: its status and its JSON body. Without JSON, ``body`` is empty."""

    status: int
    body: dict[str, Any]

    @property
    def reason(self) -> str:
        """Return the status, and the code of a refusal. gunicorn's own refusals have no code."""
        return "200" if self.status == 200 else f"{self.status} {self.body.get('code', '')}".strip()


Judge = Callable[[Answer], str]


@dataclass
class Ledger:
    """The requests that were sent and their outcomes, by kind of client."""

    sent: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    async def account(self, kind: str, request: Awaitable[Answer | str], judge: Judge) -> None:
        """Wait for one request's answer, judge it, and count the outcome."""
        self.sent[kind] += 1
        try:
            answer = await asyncio.wait_for(request, PATIENCE_S)
        except TimeoutError:
            answer = SILENT
        except (OSError, EOFError):
            answer = CLOSED
        self.outcomes[kind, self._outcome(kind, answer, judge)] += 1

    def _outcome(self, kind: str, answer: Answer | str, judge: Judge) -> str:
        if isinstance(answer, str):
            return answer
        self.reasons[answer.reason] += 1
        verdict = judge(answer)
        if verdict == WRONG:
            self.wrong.append(f"{kind}: {answer}")
        return verdict

    def total(self, *outcomes: str) -> int:
        """Return how many requests had one of these outcomes."""
        return sum(n for (_, outcome), n in self.outcomes.items() if outcome in outcomes)


def _is_busy(answer: Answer) -> bool:
    return answer.status in (503, 504) and "detail" in answer.body


def expects(status: int, or_right: bool = False) -> Judge:
    """Return a judge that accepts this status, 503 or 504 from a busy server, and perhaps 200."""

    def judge(answer: Answer) -> str:
        if answer.status == 200 and or_right:
            return RIGHT
        return REFUSED if answer.status == status or _is_busy(answer) else WRONG

    return judge


def knows(class_id: str) -> Judge:
    """Return a judge that accepts this class, and 503 or 504 from a busy server."""

    def judge(answer: Answer) -> str:
        if answer.status == 200:
            return RIGHT if answer.body.get("class_id") == class_id else WRONG
        return REFUSED if _is_busy(answer) else WRONG

    return judge


def is_healthy(answer: Answer) -> str:
    """Accept 200 only: probes are never refused."""
    return RIGHT if answer.status == 200 else WRONG


# Requests as bytes.


def request(body: bytes, kind: str = "image/jpeg", method: str = "POST") -> bytes:
    """Build a request to ``/predict`` with a Content-Length."""
    head = f"{method} /predict HTTP/1.1\r\nHost: soak\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def as_form(photo: bytes) -> bytes:
    """Build a form request that contains the photo as a file."""
    head = b'--soak\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    return request(head + photo + b"\r\n--soak--\r\n", "multipart/form-data; boundary=soak")


def as_json(photo: bytes) -> bytes:
    """Build a request whose JSON contains the photo in base64."""
    text = base64.b64encode(photo).decode()
    return request(json.dumps({"image": text}).encode(), "application/json")


def as_put(photo: bytes) -> bytes:
    """Build the PUT request that ``curl -T`` sends."""
    return request(photo, method="PUT")


def as_chunks(photo: bytes) -> bytes:
    """Build a request whose body is chunked and has no Content-Length."""
    pieces = [photo[i : i + 30_000] for i in range(0, len(photo), 30_000)]
    body = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    head = b"POST /predict HTTP/1.1\r\nHost: soak\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + body + b"0\r\n\r\n"


FORMS = (request, as_form, as_json, as_put, as_chunks)
PROBES = ("/healthz", "/readyz", "/metrics")


def bad_requests(photo: bytes) -> list[tuple[bytes, int]]:
    """Return requests that must be refused, each with the status of the refusal."""
    flat = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(flat, "PNG")
    return [
        (request(photo[: len(photo) // 2]), 422),
        (request(b"hello"), 415),
        (request(b""), 400),
        (as_form(b""), 400),
        (as_form(flat.getvalue()), 413),
        (request(b"{", "application/json"), 400),
        (request(photo[:2] + b"\xff\xe1\0\x09Exif\0\0x" * 1000 + photo[2:]), 413),
    ]


async def answer_of(reader: asyncio.StreamReader) -> Answer:
    """Read one response."""
    response = await read_response(reader)
    is_json = b"application/json" in response.head or b"problem+json" in response.head
    return Answer(response.status, json.loads(response.body) if is_json else {})


class Clients:
    """Clients of every kind for one server."""

    def __init__(self, port: int, photos: list[bytes], seed: int) -> None:
        """Prepare the requests. Call :meth:`learn` before any other method."""
        self.ledger = Ledger()
        self._port, self._photos = port, photos
        self._random = random.Random(seed)
        self._bad = bad_requests(photos[0])
        self._known: list[tuple[bytes, Judge]] = []

    async def learn(self) -> None:
        """Ask for the class of each photo while the server is idle.

        Raises:
            RuntimeError: the server did not answer 200.
        """
        for photo in self._photos:
            answer = await self._ask(request(photo))
            if answer.status != 200:
                raise RuntimeError(f"The idle server answered {answer}.")
            self._known.append((photo, knows(answer.body["class_id"])))

    async def burst(self) -> None:
        """Send enough photos and probes at once to use every thread of the server's two pools."""
        await asyncio.gather(*(ask() for ask in (self.good, self.probe) for _ in range(BURST)))

    async def run(self, seconds: float, clients: int) -> None:
        """Run clients. Each does one random thing after another, for ``seconds`` seconds."""
        end = monotonic() + seconds

        async def client(number: int) -> None:
            await self.kinds[number % len(self.kinds)]()  # together, they do all kinds
            while monotonic() < end:
                await self._random.choice(self.kinds)()

        await asyncio.gather(*map(client, range(clients)))

    @property
    def kinds(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """What a client may do. It does a thing that is listed twice twice as often."""
        return (self.good, self.good, self.good, self.kept, self.bad, self.slow,
                self.leaves_early, self.leaves_late, self.garbage, self.probe)  # fmt: skip

    async def good(self) -> None:
        """Send a photo in one of the usual forms."""
        photo, judge = self._random.choice(self._known)
        form = self._random.choice(FORMS)
        await self.ledger.account(f"good, {form.__name__}", self._ask(form(photo)), judge)

    async def kept(self) -> None:
        """Send three photos over one connection."""
        streams = await self._open()
        for photo, judge in self._random.choices(self._known, k=3):
            await self.ledger.account("good, kept", self._send(streams, request(photo)), judge)
        streams[1].close()

    async def bad(self) -> None:
        """Send a request that must be refused."""
        data, status = self._random.choice(self._bad)
        await self.ledger.account("bad", self._ask(data), expects(status))

    async def slow(self) -> None:
        """Send a body in small pieces, over some seconds."""
        photo, judge = self._random.choice(self._known)
        await self.ledger.account("slow", self._drip(as_form(photo)), judge)

    async def leaves_early(self) -> None:
        """Send half a request and disconnect."""
        photo, judge = self._random.choice(self._known)
        data = self._random.choice(FORMS)(photo)
        await self.ledger.account("leaves early", self._leave(data[: len(data) // 2]), judge)

    async def leaves_late(self) -> None:
        """Send a whole request and disconnect before the answer."""
        photo, judge = self._random.choice(self._known)
        await self.ledger.account("leaves late", self._leave(request(photo)), judge)

    async def garbage(self) -> None:
        """Send a photo and, directly after it, bytes that are not HTTP."""
        photo, judge = self._random.choice(self._known)
        streams = await self._open()
        noise = self._random.randbytes(200) + b"\r\n\r\n"
        whole = request(photo) + noise
        await self.ledger.account("good, before garbage", self._send(streams, whole), judge)
        await self.ledger.account("garbage", answer_of(streams[0]), expects(400))
        streams[1].close()

    async def probe(self) -> None:
        """Ask what a monitor asks."""
        path = self._random.choice(PROBES)
        head = f"GET {path} HTTP/1.1\r\nHost: soak\r\n\r\n".encode()
        await self.ledger.account("probe", self._ask(head), is_healthy)

    async def _open(self) -> Streams:
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def _send(self, streams: Streams, data: bytes) -> Answer:
        reader, writer = streams
        writer.write(data)
        return await answer_of(reader)

    async def _ask(self, data: bytes) -> Answer:
        streams = await self._open()
        try:
            return await self._send(streams, data)
        finally:
            streams[1].close()

    async def _drip(self, data: bytes) -> Answer:
        reader, writer = await self._open()
        pieces, pause_s = 20, self._random.uniform(0.01, 0.2)
        step = len(data) // pieces + 1
        try:
            with suppress(OSError):  # the server may refuse the request before its end
                for start in range(0, len(data), step):
                    writer.write(data[start : start + step])
                    await writer.drain()
                    await asyncio.sleep(pause_s)
            return await answer_of(reader)
        finally:
            writer.close()

    async def _leave(self, data: bytes) -> str:
        _, writer = await self._open()
        writer.write(data)
        with suppress(OSError):
            await writer.drain()
            await asyncio.sleep(self._random.uniform(0, 0.05))
        writer.transport.abort()
        return LEFT
