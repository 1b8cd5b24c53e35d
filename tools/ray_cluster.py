"""Ray nodes on this machine, and clients that count lost requests, for tests/ray and tools/scale.

Ray listens on all interfaces. So this runs only in a network namespace that has none but ``lo``.
"""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from time import monotonic, sleep
from typing import Any

import psutil

from benchmarks.load import Connection
from benchmarks.servers import ROOT

HOST, PORT = "127.0.0.1", 8000
RETRIED = (0, 500, 502, 503)  # 0: the connection was cut
# Ray reads these when it is imported. A busy machine may need long for a process to start.
os.environ |= {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # or Ray writes a token into the home folder
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_worker_register_timeout_seconds": "120",
    "PYTHONPATH": str(ROOT),  # of the replicas
}


def why_not_here() -> str | None:
    """Return why no Ray node may be started here; None if it may."""
    if {name for _, name in socket.if_nameindex()} == {"lo"}:
        return None
    return (
        "Ray listens on all interfaces. Only root can give it a network of its own: run `make ray`"
        " or `make scale` as root."
    )


@contextmanager
def cluster(cores: Sequence[int | None], cpus: int = 1) -> Iterator[Any]:
    """Run a Ray node for each entry, each on this core, or for None on all, with ``cpus`` slots.

    Yields:
        Ray's ``Cluster``. Its first node has the proxy.
    """
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster()
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        try:
            for core in cores:
                add_node(nodes, core, cpus, temp_dir=folder)
            ray.init(address=nodes.address, log_to_driver=False)
            yield nodes
        finally:
            ray.shutdown()
            nodes.shutdown()


def add_node(nodes: Any, core: int | None, cpus: int, **options: Any) -> Any:
    """Start a node, whose processes inherit the affinity, and return it."""
    with pinned(os.sched_getaffinity(0) if core is None else {core}):
        return nodes.add_node(
            num_cpus=cpus, node_ip_address=HOST, object_store_memory=100 * 2**20,
            include_dashboard=False, **options,
        )  # fmt: skip


@contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """Give these cores to the threads and processes that this thread starts in the block."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def serve_app(environ: Mapping[str, str] | None = None, **options: Any) -> None:
    """Serve the app at ``HOST:PORT``, or replace all replicas of an earlier call."""
    from ray import serve

    from deploy.ray.serve import Predictor

    serve.start(proxy_location="HeadOnly", http_options={"host": HOST, "port": PORT})
    resources: dict[str, Any] = {"num_cpus": 1}
    if environ is not None:
        resources["runtime_env"] = {"env_vars": dict(environ)}
    serve.run(Predictor.options(ray_actor_options=resources, **options).bind())


def replicas() -> list[psutil.Process]:
    """Return the processes of the replicas."""
    return [p for p in psutil.process_iter() if any("ServeReplica" in part for part in _line(p))]


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@contextmanager
def processor_time() -> Iterator[dict[str, float]]:
    """Yield a dictionary, and fill it after the block: CPU seconds by kind of process."""
    spent: Counter[str] = Counter()
    before = {process: _cpu_s(process) for process in psutil.process_iter()}
    yield spent
    for process in psutil.process_iter():
        spent[_kind(process)] += _cpu_s(process) - before.get(process, 0.0)


def _cpu_s(process: psutil.Process) -> float:
    with suppress(psutil.Error):
        return float(sum(process.cpu_times()[:2]))
    return 0.0


def _kind(process: psutil.Process) -> str:
    if process.pid == os.getpid():
        return "clients"
    with suppress(psutil.Error):
        command = " ".join(process.cmdline())
        if "ServeReplica" in command or "gunicorn" in command:
            return "app"
        if "haproxy " in f"{command} " or "nginx" in command:
            return "proxy"
    return "rest"


@dataclass
class Losses:
    """What clients saw.

    Attributes:
        asked: how many requests were sent, without retries.
        lost: how many of them got no 200.
        lost_twice: how many got none when they were sent again, or a status that is not retried.
    """

    asked: int = 0
    lost: int = 0
    lost_twice: int = 0
    statuses: list[int] = field(default_factory=list)


@contextmanager
def clients(count: int, requests: Sequence[bytes], port: int = PORT) -> Iterator[Losses]:
    """Send requests during the block, ``count`` at a time. A client retries once on ``RETRIED``."""
    losses, ended = Losses(), threading.Event()

    async def client(number: int) -> None:
        connection, photos = Connection(HOST, port), cycle([*requests[number:], *requests[:number]])
        while not ended.is_set():
            request = next(photos)
            status = await connection.ask(request)
            losses.asked += 1
            if status != 200:
                losses.lost += 1
                losses.statuses.append(status)
                again = await connection.ask(request) if status in RETRIED else status
                losses.lost_twice += again != 200
        connection.close()

    async def run() -> None:
        await asyncio.gather(*(client(number % len(requests)) for number in range(count)))

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        yield losses
    finally:
        ended.set()
        thread.join()


def post(photo: bytes, path: str = "/predict") -> bytes:
    """Return a complete request."""
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: image/jpeg\r\n"
    return f"{head}Content-Length: {len(photo)}\r\n\r\n".encode() + photo


def wait_for(losses: Losses, more: int) -> None:
    """Wait until ``more`` further requests have been answered."""
    aim = losses.asked + more
    wait_until(lambda: losses.asked >= aim)


def wait_until(condition: Callable[[], bool], timeout_s: float = 120) -> None:
    """Wait until ``condition`` returns True.

    Raises:
        TimeoutError: it did not within ``timeout_s``.
    """
    deadline = monotonic() + timeout_s
    while not condition():
        if monotonic() > deadline:
            raise TimeoutError(f"Not true within {timeout_s} s.")
        sleep(0.05)
