"""Good, bad, slow and rude clients at once, for minutes: ``make soak SOAK="--minutes 15"``.

Every request sent is accounted for: answered right, refused with a reason, or broken off, by us
or by the server. Memory, threads and descriptors are counted at rest: before the load, after the
warm-up (a burst that wakes every thread, and a fifth of the time) and after the rest of it. Only
memory of the server's own may not grow: of a mapped file each process bears its share.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from PIL import Image
from skimage import data

from benchmarks.servers import Recipe, Server, running

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "camera", "immunohistochemistry")
OURS = Recipe(
    "this app", ("{python}", "-m", "gunicorn", "wsgi:app"),
    {"PREDICTOR_MODEL": "efficientnet_lite0", "PREDICTOR_MAX_IN_FLIGHT": "32"},
)  # fmt: skip
BURST = 100  # more than the threads of that server
PATIENCE_S = 60.0  # no answer within it counts as none
RIGHT, REFUSED, LEFT, CLOSED = "answered right", "refused", "broken off by us", "by the server"
WRONG, SILENT = "WRONG", "NO ANSWER"


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int
    body: dict[str, Any]

    @property
    def reason(self) -> str:
        """Status and code of a refusal."""
        code = self.body.get("code", "in gunicorn's words")
        return f"{self.status} {code}"


@dataclass
class Ledger:
    """What was sent, and what became of it, by kind of client."""

    sent: Counter[str] = field(default_factory=Counter)
    became: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    async def account(self, kind: str, outcome: Awaitable[Answer | str], judge: Judge) -> None:
        """Wait for one request's outcome and book it."""
        self.sent[kind] += 1
        try:
            answer = await asyncio.wait_for(outcome, PATIENCE_S)
        except TimeoutError:
            answer = SILENT
        except (OSError, EOFError):
            answer = CLOSED
        self.became[kind, self._book(kind, answer, judge)] += 1

    def _book(self, kind: str, answer: Answer | str, judge: Judge) -> str:
        if isinstance(answer, str):
            return answer
        if answer.status != 200:
            self.reasons[answer.reason] += 1
        verdict = judge(answer)
        if verdict == WRONG:
            self.wrong.append(f"{kind}: {answer}")
        return verdict

    def total(self, *outcomes: str) -> int:
        """How many requests became one of these."""
        return sum(n for (_, outcome), n in self.became.items() if outcome in outcomes)


Judge = Callable[[Answer], str]


def _is_busy(answer: Answer) -> bool:
    return answer.status in (503, 504) and "detail" in answer.body


def expects(status: int) -> Judge:
    """The status a bad request deserves, unless there is no room for it."""
    return lambda answer: REFUSED if answer.status == status or _is_busy(answer) else WRONG


def knows(class_id: str) -> Judge:
    """The class the photo has, unless there is no room for it."""

    def judge(answer: Answer) -> str:
        if answer.status == 200:
            return RIGHT if answer.body.get("class_id") == class_id else WRONG
        return REFUSED if _is_busy(answer) else WRONG

    return judge


def is_well(answer: Answer) -> str:
    """A probe answers 200 at all times."""
    return RIGHT if answer.status == 200 else WRONG


# Requests as bytes.


def request(body: bytes, kind: str = "image/jpeg", method: str = "POST") -> bytes:
    """A request with a length."""
    head = f"{method} /predict HTTP/1.1\r\nHost: soak\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def as_form(photo: bytes) -> bytes:
    """A form with a file."""
    head = b'--soak\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    return request(head + photo + b"\r\n--soak--\r\n", "multipart/form-data; boundary=soak")


def as_json(photo: bytes) -> bytes:
    """JSON with base64."""
    text = base64.b64encode(photo).decode()
    return request(json.dumps({"image": text}).encode(), "application/json")


def as_put(photo: bytes) -> bytes:
    """The body itself, as ``curl -T`` sends it."""
    return request(photo, method="PUT")


def as_chunks(photo: bytes) -> bytes:
    """The body in pieces, its length not told before."""
    pieces = [photo[i : i + 30_000] for i in range(0, len(photo), 30_000)]
    body = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    head = b"POST /predict HTTP/1.1\r\nHost: soak\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + body + b"0\r\n\r\n"


WAYS = (request, as_form, as_json, as_put, as_chunks)
PROBES = ("/healthz", "/readyz")


def bad_requests(photo: bytes) -> list[tuple[bytes, int]]:
    """Requests that deserve a refusal, and which."""
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


# Clients.


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def answer_of(reader: asyncio.StreamReader) -> Answer:
    """Read one response to its end."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    body = await reader.readexactly(length)
    is_json = b"application/json" in head or b"problem+json" in head
    return Answer(int(head.split()[1]), json.loads(body) if is_json else {})


class Soak:
    """Clients of every kind against one server."""

    def __init__(self, port: int, photos: list[bytes], seed: int) -> None:
        """Nothing is sent before :meth:`learn`."""
        self.ledger = Ledger()
        self._port, self._photos = port, photos
        self._random = random.Random(seed)
        self._bad = bad_requests(photos[0])
        self._known: list[tuple[bytes, Judge]] = []

    async def learn(self) -> None:
        """Ask for each photo's class while nobody else asks."""
        for photo in self._photos:
            answer = await self._ask(request(photo))
            if answer.status != 200:
                raise RuntimeError(f"a lone request was answered {answer}")
            self._known.append((photo, knows(answer.body["class_id"])))

    async def burst(self) -> None:
        """So many good requests at once that every thread of the server has one."""
        await asyncio.gather(*(self.good() for _ in range(BURST)))

    async def run(self, seconds: float, clients: int) -> None:
        """Clients that do one thing after the other, each chosen by chance."""
        kinds = (self.good, self.good, self.good, self.kept, self.bad, self.slow,
                 self.leaves_early, self.leaves_late, self.garbage, self.probe)  # fmt: skip
        end = monotonic() + seconds

        async def client() -> None:
            while monotonic() < end:
                await self._random.choice(kinds)()

        await asyncio.gather(*(client() for _ in range(clients)))

    async def good(self) -> None:
        """A photo in one of the usual ways."""
        photo, judge = self._random.choice(self._known)
        way = self._random.choice(WAYS)
        await self.ledger.account(f"good, {way.__name__}", self._ask(way(photo)), judge)

    async def kept(self) -> None:
        """Three photos over one connection."""
        streams = await self._open()
        for photo, judge in self._random.choices(self._known, k=3):
            await self.ledger.account("good, kept", self._say(streams, request(photo)), judge)
        streams[1].close()

    async def bad(self) -> None:
        """What deserves a refusal."""
        data, status = self._random.choice(self._bad)
        await self.ledger.account("bad", self._ask(data), expects(status))

    async def slow(self) -> None:
        """A body that drips for some seconds."""
        photo, judge = self._random.choice(self._known)
        await self.ledger.account("slow", self._drip(as_form(photo)), judge)

    async def leaves_early(self) -> None:
        """Half a body, and gone."""
        photo, judge = self._random.choice(self._known)
        data = self._random.choice(WAYS)(photo)
        await self.ledger.account("leaves early", self._leave(data[: len(data) // 2]), judge)

    async def leaves_late(self) -> None:
        """A whole request, and gone before the answer."""
        photo, judge = self._random.choice(self._known)
        await self.ledger.account("leaves late", self._leave(request(photo)), judge)

    async def garbage(self) -> None:
        """A photo, and in the same breath what is no HTTP."""
        photo, judge = self._random.choice(self._known)
        streams = await self._open()
        noise = self._random.randbytes(200) + b"\r\n\r\n"
        whole = request(photo) + noise
        await self.ledger.account("good, before garbage", self._say(streams, whole), judge)
        await self.ledger.account("garbage", answer_of(streams[0]), expects(400))
        streams[1].close()

    async def probe(self) -> None:
        """Is it alive, is it ready?"""
        path = self._random.choice(PROBES)
        head = f"GET {path} HTTP/1.1\r\nHost: soak\r\n\r\n".encode()
        await self.ledger.account("probe", self._ask(head), is_well)

    async def _open(self) -> Streams:
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def _say(self, streams: Streams, data: bytes) -> Answer:
        reader, writer = streams
        writer.write(data)
        return await answer_of(reader)

    async def _ask(self, data: bytes) -> Answer:
        streams = await self._open()
        try:
            return await self._say(streams, data)
        finally:
            streams[1].close()

    async def _drip(self, data: bytes) -> Answer:
        reader, writer = await self._open()
        pieces, pause_s = 20, self._random.uniform(0.01, 0.4)
        step = len(data) // pieces + 1
        try:
            with suppress(OSError):  # the server may refuse before the end, and says why
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


# The server at rest.


@dataclass(frozen=True)
class Rest:
    """What the server holds while nobody asks."""

    pss_mb: float
    own_mb: float  # without mapped files, whose share depends on who else maps them
    threads: int
    descriptors: int


def at_rest(server: Server, most: Rest | None = None, timeout_s: float = 20) -> Rest:
    """Count once the server has let go of what it served; with ``most``, wait for no more."""
    deadline, last = monotonic() + timeout_s, _count(server)
    while monotonic() < deadline:
        sleep(1)
        now = _count(server)
        settled = (now.threads, now.descriptors) == (last.threads, last.descriptors)
        if settled and abs(now.own_mb - last.own_mb) < 1 and not (most and _leaks(now, most)):
            break
        last = now
    return last


def _leaks(now: Rest, before: Rest) -> bool:
    return now.threads > before.threads or now.descriptors > before.descriptors


def _count(server: Server) -> Rest:
    threads = descriptors = own_kb = 0
    for pid in server.processes():
        with suppress(OSError):
            memory = Path(f"/proc/{pid}/smaps_rollup").read_text()
            own_kb += int(memory.split("Pss_Anon:")[1].split()[0])
            threads += len(list(Path(f"/proc/{pid}/task").iterdir()))
            descriptors += len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Rest(server.pss_mb(), own_kb / 1000, threads, descriptors)


# The balance.


@dataclass(frozen=True)
class Balance:
    """A run: what was sent and what became of it, and the server before and after."""

    ledger: Ledger
    start: Rest
    warm: Rest
    end: Rest
    peak_mb: float

    @property
    def growth(self) -> float:
        """Growth of its own memory at rest from the warm-up to the end, as a share of all."""
        return (self.end.own_mb - self.warm.own_mb) / self.warm.pss_mb

    def complaints(self, most_growth: float) -> list[str]:
        """What must not be, one sentence each."""
        sent, booked = self.ledger.sent.total(), self.ledger.became.total()
        fives = {reason for reason in self.ledger.reasons if reason.startswith("500")}
        provoked = {("garbage", CLOSED), ("slow", CLOSED)}
        closed = [
            k for k, what in self.ledger.became if what == CLOSED and (k, what) not in provoked
        ]
        found = {
            f"{sent} were sent and {booked} are accounted for.": sent != booked,
            f"{len(self.ledger.wrong)} wrong answers.": self.ledger.wrong,
            f"{self.ledger.total(SILENT)} without an answer.": self.ledger.total(SILENT),
            f"There were {', '.join(fives)}.": fives,
            f"The server broke off unprovoked: {', '.join(closed)}.": closed,
            f"Memory grew by {self.growth:.1%}.": self.growth > most_growth,
            "Threads or descriptors leaked.": _leaks(self.end, self.warm),
        }
        return [sentence for sentence, is_so in found.items() if is_so]


def measure(server: Server, photos: list[bytes], options: argparse.Namespace) -> Balance:
    """Warm up, load, and count at rest in between."""
    soak, seconds = Soak(server.port, photos, options.seed), options.minutes * 60
    asyncio.run(soak.learn())
    with server.peak_pss_mb() as memory:
        start = at_rest(server)
        asyncio.run(soak.burst())
        asyncio.run(soak.run(seconds / 5, options.clients))
        warm = at_rest(server)
        asyncio.run(soak.run(seconds * 4 / 5, options.clients))
        end = at_rest(server, warm)
    return Balance(soak.ledger, start, warm, end, max(memory))


def show(balance: Balance) -> None:
    """Print the balance sheet."""
    ledger, outcomes = balance.ledger, (RIGHT, REFUSED, LEFT, CLOSED, WRONG, SILENT)
    print(f"\n{'':24}{'sent':>9}" + "".join(f"{outcome:>18}" for outcome in outcomes))
    for kind, sent in sorted(ledger.sent.items()):
        row = (ledger.became[kind, outcome] for outcome in outcomes)
        print(f"{kind:24}{sent:9,}" + "".join(f"{n or '·':>18}" for n in row))
    totals = "".join(f"{ledger.total(outcome):18,}" for outcome in outcomes)
    print(f"{'all':24}{ledger.sent.total():9,}{totals}\n")
    for reason, n in sorted(ledger.reasons.items()):
        print(f"  {n:8,} × {reason}")
    for name in ("start", "warm", "end"):
        rest: Rest = getattr(balance, name)
        memory = f"{rest.pss_mb:8.1f} MB, {rest.own_mb:.1f} its own"
        print(f"{name:8}{memory} {rest.threads:5} threads {rest.descriptors:5} files")
    print(f"peak    {balance.peak_mb:8.1f} MB; from warm to end {balance.growth:+.2%}")
    for wrong in ledger.wrong[:10]:
        print("wrong answer:", wrong)


def _photos() -> list[bytes]:
    """Photographs in the public domain."""
    encoded = []
    for name in PHOTOS:
        buffer = io.BytesIO()
        Image.fromarray(getattr(data, name)()).convert("RGB").save(buffer, "JPEG", quality=90)
        encoded.append(buffer.getvalue())
    return encoded


def main() -> None:
    """Soak, print the balance, and fail if it is not exact or anything leaked."""
    parser = argparse.ArgumentParser(prog="python -m tools.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15, help="of load (default: 15)")
    parser.add_argument("--clients", type=int, default=16, help="at once (default: 16)")
    parser.add_argument("--seed", type=int, default=0, help="of what the clients do")
    parser.add_argument("--most-growth", type=float, default=0.02, help="of memory (default: 0.02)")
    options = parser.parse_args()
    with running(OURS) as (server, _):
        balance = measure(server, _photos(), options)
    show(balance)
    complaints = balance.complaints(options.most_growth)
    print("\n" + ("\n".join(complaints) or "The balance is exact; nothing leaked."))
    sys.exit(bool(complaints))


if __name__ == "__main__":
    main()
