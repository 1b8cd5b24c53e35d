"""Start a server, measure its memory and processor time, and stop it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import psutil

ROOT = Path(__file__).parent.parent


class NotReady(Exception):
    """A server ended or was not ready in time. The message contains its log."""


READY = b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Recipe:
    """How to start a server. :func:`running` fills in ``{port}`` and ``{python}``."""

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]
    path: str = "/predict"
    form: str = "image/jpeg"  # of a request, see benchmarks.load.whole_request
    probe: bytes = READY  # a request that gets 200 when the server is ready


class Server:
    """A running server: its port, and the memory and processor time of its processes."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        """Measure ``process``, which listens on ``port``, and its children."""
        self._process, self.port = psutil.Process(process.pid), port

    def total(self, figure: Callable[[psutil.Process], float]) -> float:
        """Sum a figure over the process and its descendants. An ended process counts as 0."""
        total = 0.0
        for process in (self._process, *self._process.children(recursive=True)):
            with suppress(psutil.Error):
                total += figure(process)
        return total

    def cpu_s(self) -> float:
        """Return the processor seconds used so far, user and system."""
        return self.total(lambda process: sum(process.cpu_times()[:2]))

    def pss_mb(self) -> float:
        """Return the proportional set size in MB, which counts shared memory only once."""
        return self.total(lambda process: process.memory_full_info().pss) / 1e6

    @contextmanager
    def peak_pss_mb(self) -> Iterator[list[float]]:
        """Yield a list, and append ``pss_mb`` to it twice a second while the block runs."""
        seen, done = [self.pss_mb()], threading.Event()

        def watch() -> None:
            while not done.wait(0.5):
                seen.append(self.pss_mb())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield seen
        finally:
            done.set()
            watcher.join()


@contextmanager
def running(recipe: Recipe, timeout_s: float = 240) -> Iterator[tuple[Server, float]]:
    """Start a server, and stop it after the block, with all processes that it has started.

    Yields:
        The server, and the seconds from its start to the first 200 for its probe.

    Raises:
        NotReady: the server ended or was not ready in time.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [part.format(port=port, python=sys.executable) for part in recipe.command]
    own = {"HOST": "127.0.0.1", "PORT": str(port)}
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        # Some servers leave files there, and two of one kind must not meet.
        environ = {**os.environ, "TMPDIR": folder, **recipe.environ, **own}
        begin = monotonic()
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log)
        try:
            while not _is_ready(port, recipe.probe):
                if process.poll() is not None or monotonic() > begin + timeout_s:
                    log.seek(0)
                    raise NotReady(f"{recipe.name} did not start:\n{log.read().decode()}")
                sleep(0.02)
            yield Server(process, port), monotonic() - begin
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Terminate a server. Then kill what it has left running: TorchServe leaves Java."""
    with suppress(psutil.NoSuchProcess):
        server = psutil.Process(process.pid)
        all_of_it = [server, *server.children(recursive=True)]
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)
        _, left = psutil.wait_procs(all_of_it, timeout=1)
        for one in left:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(left, timeout=10)
    process.wait(timeout=60)


def _is_ready(port: int, probe: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(probe)
            return connection.recv(12)[9:] == b"200"
    except OSError:
        return False
