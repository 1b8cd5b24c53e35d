"""Load a server for minutes with good, bad, slow, rude and hostile clients: ``make soak``.

Each request must have one outcome: answered right, refused with a reason, or cut off by the client
or by the server. The server must have counted each refusal that a client read. Memory, threads and
descriptors are counted while the server is idle: before the load, after the warm-up, and at the
end. The warm-up is a burst that uses every thread, and then the load for a fifth of the time.
The server's own memory must not grow. Mapped files do not count: how much of a file is
charged to a process depends on which other processes map it.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import re
import sys
import urllib.request
from collections import Counter
from dataclasses import dataclass
from time import monotonic, sleep

import psutil
from PIL import Image
from skimage import data

from benchmarks.servers import Recipe, Server, running
from tools.soak_clients import CLOSED, LEFT, REFUSED, RIGHT, SILENT, WRONG, Ledger
from tools.soak_hostile import HostileClients

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "camera", "immunohistochemistry")
THIS_APP = Recipe(
    "this app", ("{python}", "-m", "gunicorn", "wsgi:app"),
    {"PREDICTOR_MODEL": "efficientnet_lite0", "PREDICTOR_MAX_IN_FLIGHT": "32",
     "PREDICTOR_RECEIVE_TIMEOUT_S": "10"},  # the slow clients need 4 s
)  # fmt: skip
REJECTED = re.compile(r'^predictor_rejected_total\{.*?reason="([a-z-]+)".*\} (\d+)', re.MULTILINE)


@dataclass(frozen=True)
class Usage:
    """What an idle server holds."""

    pss_mb: float
    own_mb: float  # without mapped files
    threads: int
    descriptors: int

    def exceeds(self, before: Usage) -> bool:
        """Return whether there are more threads or descriptors than before."""
        return self.threads > before.threads or self.descriptors > before.descriptors


def idle_usage(server: Server, limit: Usage | None = None, timeout_s: float = 20) -> Usage:
    """Wait until the usage stays the same for a second and does not exceed ``limit``, if given.

    Returns:
        The last usage. After ``timeout_s`` seconds, return it in any case.
    """
    deadline, last = monotonic() + timeout_s, _usage(server)
    while monotonic() < deadline:
        sleep(1)
        now = _usage(server)
        settled = (now.threads, now.descriptors) == (last.threads, last.descriptors)
        if settled and abs(now.own_mb - last.own_mb) < 1 and not (limit and now.exceeds(limit)):
            break
        last = now
    return last


def _usage(server: Server) -> Usage:
    return Usage(
        pss_mb=server.pss_mb(),
        own_mb=server.total(lambda p: sum(area.anonymous for area in p.memory_maps())) / 1e6,
        threads=int(server.total(psutil.Process.num_threads)),
        descriptors=int(server.total(psutil.Process.num_fds)),
    )


@dataclass(frozen=True)
class Balance:
    """The result of a run: the requests, their outcomes, and what the idle server held."""

    ledger: Ledger
    counted: Counter[str]  # the refusals that the server counted, by code
    start: Usage
    warm: Usage
    end: Usage
    peak_mb: float

    @property
    def growth(self) -> float:
        """Return the growth of the server's own memory since the warm-up, divided by its PSS."""
        return (self.end.own_mb - self.warm.own_mb) / self.warm.pss_mb

    def complaints(self, max_growth: float) -> list[str]:
        """Return one sentence for each fault found."""
        sent, booked = self.ledger.sent.total(), self.ledger.outcomes.total()
        errors = sorted(r for r in self.ledger.reasons if r.startswith("500"))
        provoked = {("garbage", CLOSED), ("slow", CLOSED)}
        closed = [
            key[0] for key in self.ledger.outcomes if key[1] == CLOSED and key not in provoked
        ]
        read = Counter({reason[4:]: n for reason, n in self.ledger.reasons.items() if reason[4:]})
        uncounted = read - self.counted
        found = {
            f"{sent} requests were sent, but {booked} have an outcome.": sent != booked,
            f"{len(self.ledger.wrong)} answers were wrong.": self.ledger.wrong,
            f"{self.ledger.total(SILENT)} requests got no answer.": self.ledger.total(SILENT),
            f"The server answered {', '.join(errors)}.": errors,
            f"The server closed connections without a cause: {', '.join(closed)}.": closed,
            f"Memory grew by {self.growth:.1%}.": self.growth > max_growth,
            "Threads or descriptors leaked.": self.end.exceeds(self.warm),
            **{f"{code}: {n} more than the server counted.": True for code, n in uncounted.items()},
        }
        return [sentence for sentence, is_so in found.items() if is_so]


def measure(server: Server, photos: list[bytes], options: argparse.Namespace) -> Balance:
    """Warm the server up and load it. Count what it holds before, between and after."""
    clients = HostileClients(server.port, photos, options.seed)
    seconds = options.minutes * 60
    asyncio.run(clients.learn())
    with server.peak_pss_mb() as memory:
        start = idle_usage(server)
        asyncio.run(clients.burst())
        asyncio.run(clients.run(seconds / 5, options.clients))
        warm = idle_usage(server)
        asyncio.run(clients.run(seconds * 4 / 5, options.clients))
        end = idle_usage(server, warm)
    return Balance(clients.ledger, refusals(server), start, warm, end, max(memory))


def refusals(server: Server) -> Counter[str]:
    """Return how many refusals ``/metrics`` counts, by code."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as response:
        found = REJECTED.findall(response.read().decode())
    counts = Counter[str]()
    for code, count in found:  # of each version, and of requests that concern no model
        counts[code] += int(count)
    return counts


def show(balance: Balance) -> None:
    """Print the table of outcomes, the refusals and what the server held."""
    ledger, outcomes = balance.ledger, (RIGHT, REFUSED, LEFT, CLOSED, WRONG, SILENT)
    print(f"\n{'':24}{'sent':>9}" + "".join(f"{outcome:>18}" for outcome in outcomes))
    for kind, sent in sorted(ledger.sent.items()):
        row = (ledger.outcomes[kind, outcome] for outcome in outcomes)
        print(f"{kind:24}{sent:9,}" + "".join(f"{n or '·':>18}" for n in row))
    totals = "".join(f"{ledger.total(outcome):18,}" for outcome in outcomes)
    print(f"{'all':24}{ledger.sent.total():9,}{totals}\n")
    for reason, n in sorted(ledger.reasons.items()):
        print(f"  {n:8,} × {reason}")
    for name in ("start", "warm", "end"):
        usage: Usage = getattr(balance, name)
        memory = f"{usage.pss_mb:8.1f} MB, {usage.own_mb:.1f} its own"
        print(f"{name:8}{memory} {usage.threads:5} threads {usage.descriptors:5} files")
    print(f"peak    {balance.peak_mb:8.1f} MB; from warm to end {balance.growth:+.2%}")
    for wrong in ledger.wrong[:10]:
        print("wrong answer:", wrong)


def _photos() -> list[bytes]:
    """Return public-domain photographs as JPEGs."""
    encoded = []
    for name in PHOTOS:
        buffer = io.BytesIO()
        Image.fromarray(getattr(data, name)()).convert("RGB").save(buffer, "JPEG", quality=90)
        encoded.append(buffer.getvalue())
    return encoded


def main() -> None:
    """Run the soak, print the balance, and exit with 1 if there is a complaint."""
    parser = argparse.ArgumentParser(prog="python -m tools.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15, help="minutes of load (default: 15)")
    parser.add_argument("--clients", type=int, default=16, help="clients at once (default: 16)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the clients' random choices")
    parser.add_argument("--max-growth", type=float, default=0.02,
                        help="growth of memory that is accepted (default: 0.02)")  # fmt: skip
    options = parser.parse_args()
    with running(THIS_APP) as (server, _):
        balance = measure(server, _photos(), options)
    show(balance)
    complaints = balance.complaints(options.max_growth)
    print("\n" + ("\n".join(complaints) or "Every request has its outcome; nothing leaked."))
    sys.exit(bool(complaints))


if __name__ == "__main__":
    main()
