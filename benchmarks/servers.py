"""The servers under load: started, watched and ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

ROOT = Path(__file__).parent.parent
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Recipe:
    """How a server is started; ``{port}`` is filled in."""

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]


class Server:
    """A running server: its port, its processes' memory and processor time."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        """Watch a process that was started."""
        self._process, self.port = process, port

    def processes(self) -> list[int]:
        """The process and those it started, to any depth."""
        found, new = [], [self._process.pid]
        while new:
            found += new
            new = [child for pid in new for child in _children(pid)]
        return found

    def cpu_s(self) -> float:
        """Processor seconds used so far, user and system."""
        return sum(map(_cpu_s, self.processes()))

    def pss_mb(self) -> float:
        """Proportional set size: memory shared between processes is counted once."""
        return sum(map(_pss_kb, self.processes())) / 1000

    @contextmanager
    def peak_pss_mb(self) -> Iterator[list[float]]:
        """Collect the memory twice a second while the block runs."""
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


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return []


def _cpu_s(pid: int) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS
    return 0.0


def _pss_kb(pid: int) -> int:
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return 0


@contextmanager
def running(recipe: Recipe, timeout_s: float = 120) -> Iterator[tuple[Server, float]]:
    """A ready server, and the seconds from its start to its first 200."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [part.format(port=port, python=sys.executable) for part in recipe.command]
    environ = {**os.environ, **recipe.environ, "HOST": "127.0.0.1", "PORT": str(port)}
    with tempfile.TemporaryFile() as log:
        begin = monotonic()
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log)
        try:
            while not _is_ready(port):
                if process.poll() is not None or monotonic() > begin + timeout_s:
                    log.seek(0)
                    raise RuntimeError(f"{recipe.name} did not start:\n{log.read().decode()}")
                sleep(0.02)
            yield Server(process, port), monotonic() - begin
        finally:
            process.terminate()
            process.wait(timeout=60)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
