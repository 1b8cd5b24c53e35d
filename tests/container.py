"""Images that buildah builds on a base of Debian's packages, and containers that podman runs.

``make containers`` makes the base. The images are stored apart from others, in ``.venv-deploy``.
"""

from __future__ import annotations

import ast
import ctypes
import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import requests

from paths import ROOT
from waiting import wait_until

DEPLOY = ROOT / os.environ.get("DEPLOY", ".venv-deploy")
PORT = 8080
BASE, IMAGE = "localhost/python:base", "localhost/photo-predictor"
STORE = (f"--root={DEPLOY}/storage", f"--runroot={DEPLOY}/run")
# What an orchestrator with strict rules gives a container. The user is the image's own.
RESTRICTED = (
    "--network=none", "--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)  # fmt: skip
# Limits below those of this process: runc must not need a right to raise them.
LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096")
ASK = """
import http.client, sys
method, path, kind = sys.argv[1:]
server = http.client.HTTPConnection("127.0.0.1", 8080, timeout=60)
server.request(method, path, sys.stdin.buffer.read() or None, {"Content-Type": kind})
answer = server.getresponse()
print(answer.status, answer.read().decode())
"""


def reason_to_skip() -> str:
    """Return why images cannot be built and run here, or an empty text."""
    if missing := [name for name in ("buildah", "podman", "runc") if not shutil.which(name)]:
        return f"{', '.join(missing)} is not installed (apt-get install buildah podman runc)"
    if os.geteuid() != 0:
        return "only root can build images here"
    return "" if (DEPLOY / "base.tar").exists() else "make containers makes .venv-deploy/base.tar"


def run(program: str, *arguments: str, stdin: bytes = b"") -> str:
    """Run podman or buildah, and return what it prints."""
    done = subprocess.run(
        [program, *STORE, *arguments], cwd=ROOT, input=stdin, capture_output=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    return done.stdout.decode()


def podman(*arguments: str, stdin: bytes = b"") -> str:
    """Run podman without systemd, and return what it prints."""
    manager = ("--runtime=runc", "--cgroup-manager=cgroupfs")
    return run("podman", *manager, *arguments, stdin=stdin)


def build(target: str, folder: Path, *options: str) -> str:
    """Build a target of the Dockerfile, and return the image's name. ``folder``: for a file."""
    if subprocess.run(["podman", *STORE, "image", "exists", BASE]).returncode:
        podman("import", f"{DEPLOY}/base.tar", BASE)
    image = f"{IMAGE}:{target}"
    # --format: the images of OCI have no health check. --isolation: works within a container.
    options = (*options, "--isolation=chroot", "--format=docker", "--layers", f"--target={target}")
    run(
        "buildah", "build", *options, *_mounts(folder), f"--build-arg=BASE={BASE}",
        "--file=deploy/containers/Dockerfile", f"--tag={image}", ".",
    )  # fmt: skip
    return image


def _mounts(folder: Path) -> list[str]:
    """Give pip in the build what configures pip here: one file, and the certificates it names."""
    listed = subprocess.run(["pip", "config", "list"], capture_output=True, text=True, check=True)
    pairs = [line.partition("=") for line in listed.stdout.splitlines()]
    options = {name.rpartition(".")[2]: ast.literal_eval(value) for name, _, value in pairs}
    file = folder / "pip.conf"
    file.write_text("\n".join(["[global]", *(f"{key} = {options[key]}" for key in options)]))
    mounts = {"/etc/pip.conf": file}
    if certificates := options.get("cert"):
        mounts[certificates] = Path(certificates)
    return [f"--volume={path}:{target}:ro" for target, path in mounts.items()]


class Container:
    """A running container of an image, without a network.

    Args:
        image: its name.
        models: folder to mount as ``/models``.
        options: further options of ``podman run``.
        command: what follows the image's name.
    """

    def __init__(
        self, image: str, models: Path, *options: str, command: Sequence[str] = ()
    ) -> None:
        mount = (f"--volume={models}:/models:ro", "--env=PREDICTOR_MODEL=/models")
        run = ("run", "--detach", *RESTRICTED, *LIMITS, *mount, *options, image, *command)
        self.id = podman(*run).strip()

    def inspect(self) -> dict[str, Any]:
        (found,) = json.loads(podman("inspect", self.id))
        return dict(found)

    @property
    def log(self) -> str:
        done = subprocess.run(["podman", *STORE, "logs", self.id], capture_output=True, text=True)
        return done.stdout + done.stderr

    def python(self, program: str, *arguments: str, stdin: bytes = b"") -> str:
        """Run a program within the container, and return what it prints."""
        command = ("exec", "--interactive", self.id, "python3", "-c", program, *arguments)
        try:
            return podman(*command, stdin=stdin)
        except AssertionError as error:
            raise AssertionError(self.log) from error

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[int, str]:
        """Send the server a request from within the container. Return the status and the body."""
        status, _, text = self.python(ASK, method, path, kind, stdin=body).partition(" ")
        return int(status), text

    def seconds_to_first_200(self) -> float:
        """Wait until the server is ready. Return the time since the container's first process."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(_seconds_to_first_200, self).result()

    def stop(self) -> int:
        """Send SIGTERM, and return the exit status; SIGKILL would be 137."""
        podman("stop", "--time=60", self.id)
        return int(self.inspect()["State"]["ExitCode"])

    def close(self) -> None:
        podman("rm", "--force", "--time=0", self.id)


def _seconds_to_first_200(container: Container) -> float:
    """Ask from the container's network, which this thread enters. podman exec takes 0.3 s."""
    pid = container.inspect()["State"]["Pid"]
    with open(f"/proc/{pid}/ns/net") as network:
        assert ctypes.CDLL(None).setns(network.fileno(), 0) == 0

    def is_ready() -> bool:
        assert psutil.pid_exists(pid), container.log
        try:
            return requests.get(f"http://127.0.0.1:{PORT}/readyz", timeout=60).status_code == 200
        except requests.ConnectionError:
            return False

    wait_until(is_ready, 300)
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
