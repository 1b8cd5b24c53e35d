"""Measure growth from one core to two, and what is lost meanwhile: ``make scale``.

Two machines are imitated on this one: two Ray nodes, and then two gunicorns behind nginx, each on
a core of its own. While there is one, the clients and the proxy share its core; otherwise the
clients use both cores. The clients send photos all the time, while the second machine is added, a
new version is rolled out, and the second machine is killed. Figures are medians.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from signal import SIGHUP
from statistics import median
from time import perf_counter, sleep
from typing import Any

import psutil
import requests
from PIL import Image
from skimage import data

from benchmarks.servers import ROOT
from tools import ray_cluster
from tools.ray_cluster import (
    HOST,
    PORT,
    Losses,
    clients,
    pinned,
    post,
    processor_time,
    replicas,
    wait_for,
    wait_until,
)

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
CLIENTS = 8
PORTS = PORT + 1, PORT + 2  # gunicorn's
SETTLE_S = 5
Figures = dict[str, Any]
# As nginx has them: a POST that has been sent is not sent again to another server.
NGINX = """
user root; daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/log;
events {{}}
http {{
  access_log off; client_max_body_size 20m; client_body_buffer_size 1m;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/1; uwsgi_temp_path {folder}/2;
  scgi_temp_path {folder}/3;
  upstream app {{ least_conn; keepalive 32; {servers} }}
  server {{
    listen {host}:{port};
    location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


class OnRay:
    """Ray nodes with a replica each. Ray adds the second when there are requests for it."""

    name = "Ray Serve"
    autoscaling = {  # noqa: RUF012
        "min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": CLIENTS / 2,
        "upscale_delay_s": 1, "downscale_delay_s": 600,
    }  # fmt: skip

    def __init__(self, nodes: Any, cores: list[int]) -> None:
        """Control these nodes, which have one replica."""
        self._nodes, self._cores = nodes, cores

    @classmethod
    @contextmanager
    def running(cls, cores: list[int], _folder: Path) -> Iterator[OnRay]:
        """Run one node, on the first core."""
        with ray_cluster.cluster(cores[:1]) as nodes:
            own = cls(nodes, cores)
            own._deploy()
            yield own

    def _deploy(self) -> None:
        ray_cluster.serve_app(autoscaling_config=self.autoscaling)

    def grow(self) -> None:
        """Add a node, and wait until its replica answers."""
        ray_cluster.add_node(self._nodes, self._cores[1], 1)
        wait_until(lambda: len(self._answering()) == 2)

    @staticmethod
    def _answering() -> set[str]:
        text = requests.get(f"http://{HOST}:{PORT}/metrics", timeout=60).text
        return set(re.findall(r'replica="(.*?)"', text))

    def roll_out(self) -> None:
        """Replace both replicas."""
        before = {process.pid for process in replicas()}
        self._deploy()
        wait_until(lambda: before.isdisjoint(process.pid for process in replicas()))

    def kill(self) -> None:
        """Kill all processes of the second node at once."""
        for process in psutil.process_iter():
            if process.cpu_affinity() == [self._cores[1]]:
                process.kill()


class BehindNginx:
    """Two gunicorns behind nginx."""

    name = "gunicorn behind nginx"

    def __init__(self, cores: list[int], folder: Path) -> None:
        """Start nothing yet. The folder is nginx's."""
        self._cores, self._folder = cores, folder
        self._gunicorns: list[subprocess.Popen[bytes]] = []

    @classmethod
    @contextmanager
    def running(cls, cores: list[int], folder: Path) -> Iterator[BehindNginx]:
        """Run one gunicorn and nginx, on the first core."""
        own = cls(cores, folder)
        own._start(0)
        with pinned({cores[0]}):
            nginx = shutil.which("nginx") or "/usr/sbin/nginx"
            own._nginx = subprocess.Popen([nginx, "-p", str(folder), "-c", str(own._configure())])
        try:
            wait_until(lambda: is_ready(PORT))
            yield own
        finally:
            for process in (own._nginx, *own._gunicorns):
                process.terminate()
                process.wait(timeout=60)

    def _start(self, number: int) -> None:
        port = PORTS[number]
        environ = {**os.environ, "HOST": HOST, "PORT": str(port)}
        command = [sys.executable, "-m", "gunicorn", "wsgi:app"]
        with pinned({self._cores[number]}), (self._folder / "gunicorn").open("ab") as log:
            self._gunicorns.append(
                subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log)
            )
        wait_until(lambda: is_ready(port))

    def _configure(self) -> Path:
        path = self._folder / "nginx.conf"
        servers = [f"server {HOST}:{port};" for port in PORTS[: len(self._gunicorns)]]
        text = NGINX.format(host=HOST, port=PORT, folder=self._folder, servers=" ".join(servers))
        path.write_text(text)
        return path

    def grow(self) -> None:
        """Start the second gunicorn, then tell nginx."""
        self._start(1)
        self._configure()
        self._nginx.send_signal(SIGHUP)

    def roll_out(self) -> None:
        """Reload one gunicorn after the other."""
        for gunicorn in self._gunicorns:
            before = set(psutil.Process(gunicorn.pid).children())
            gunicorn.send_signal(SIGHUP)
            wait_until(lambda: not any(worker.is_running() for worker in before))  # noqa: B023

    def kill(self) -> None:
        """Kill all processes of the second gunicorn at once."""
        master = psutil.Process(self._gunicorns[1].pid)
        for process in (master, *master.children(recursive=True)):
            process.kill()


def is_ready(port: int) -> bool:
    """Return whether a server on this port can answer."""
    try:
        return requests.get(f"http://{HOST}:{port}/readyz", timeout=60).ok
    except requests.ConnectionError:
        return False


def main() -> int:
    """Measure Ray Serve and gunicorn, and print what was found."""
    options = _parser().parse_args()
    if reason := ray_cluster.why_not_here():
        print(reason, file=sys.stderr)
        return 2
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        print("This needs two processors.", file=sys.stderr)
        return 2
    os.environ["PREDICTOR_MODEL"] = options.model
    figures = {}
    for front in (BehindNginx, OnRay):
        with tempfile.TemporaryDirectory() as folder, front.running(cores, Path(folder)) as system:
            figures[front.name] = measure(system, cores, options)
            show(front.name, figures[front.name])
    ours, theirs = (figures[front.name]["cpu"] for front in (BehindNginx, OnRay))
    more = sum(theirs.values()) - sum(ours.values())
    print(f"\nRay takes {more:.1f} ms of processor time a request more than gunicorn behind nginx.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make scale", description=__doc__)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--windows", type=int, default=7, help="measurements of each kind")
    parser.add_argument("--seconds", type=float, default=5, help="seconds of each measurement")
    return parser


def measure(system: OnRay | BehindNginx, cores: list[int], options: argparse.Namespace) -> Figures:
    """Return the images per second, the losses, and the milliseconds of CPU for each request."""
    found: Figures = {"losses": {}}
    photos = [post(photo) for photo in encoded()]
    first, both = {cores[0]}, set(cores)
    with pinned(first), clients(CLIENTS, photos) as losses:
        wait_for(losses, 50)
        found["one"] = rates(losses, options)
    with pinned(both), clients(CLIENTS, photos) as losses:
        found["losses"]["grow"] = lost_during(losses, system.grow)
        wait_for(losses, 50)
        with processor_time() as spent:
            before = losses.asked
            found["two"] = rates(losses, options)
            asked = losses.asked - before
        found["cpu"] = {kind: seconds / asked * 1000 for kind, seconds in spent.items()}
        found["losses"]["roll out"] = lost_during(losses, system.roll_out)
        found["losses"]["kill"] = lost_during(losses, system.kill)
    with pinned(first), clients(CLIENTS, photos) as losses:
        found["one"] += rates(losses, options)
    return found


def encoded() -> Iterator[bytes]:
    """Yield JPEGs of 500 × 375 pixels."""
    for name in PHOTOS:
        file = io.BytesIO()
        Image.fromarray(getattr(data, name)()).convert("RGB").resize((500, 375)).save(file, "JPEG")
        yield file.getvalue()


def rates(losses: Losses, options: argparse.Namespace) -> list[float]:
    """Return the images per second in each window."""
    found = []
    for _ in range(options.windows):
        answered, begin = losses.asked - losses.lost, perf_counter()
        sleep(options.seconds)
        found.append((losses.asked - losses.lost - answered) / (perf_counter() - begin))
    return found


def lost_during(losses: Losses, act: Callable[[], None]) -> Losses:
    """Return what is lost from the beginning of ``act`` until some seconds after its end."""
    before = replace(losses)
    act()
    sleep(SETTLE_S)
    return Losses(
        losses.asked - before.asked, losses.lost - before.lost,
        losses.lost_twice - before.lost_twice,
    )  # fmt: skip


def show(name: str, found: Figures) -> None:
    """Print the figures of a system."""
    print(f"\n{name}, {CLIENTS} clients")
    for title in ("one", "two"):
        low, middle, high = min(found[title]), median(found[title]), max(found[title])
        print(f"  {title:8} {middle:6.1f} images/s ({low:.1f} to {high:.1f})")
    print(f"  two / one {median(found['two']) / median(found['one']):.2f}")
    for event, losses in found["losses"].items():
        print(f"  {event:9} {losses.lost} of {losses.asked} lost, {losses.lost_twice} with a retry")
    times = ", ".join(f"{kind} {ms:.1f}" for kind, ms in sorted(found["cpu"].items()))
    print(f"  CPU ms of a request: {times}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
