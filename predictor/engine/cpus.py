"""How many processors this process may really use.

``os.cpu_count()`` counts the machine's. A container is given fewer, by affinity or by a
quota, and a thread pool as large as the machine is then throttled to a fraction of its speed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def available_cpus() -> int:
    """Processors by affinity and by control-group quota, whichever is less; at least 1."""
    try:
        affinity = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has neither affinity nor control groups
        affinity = os.cpu_count() or 1
    return max(1, math.floor(min(affinity, cgroup_quota())))


def share_of_cpus(
    place: int, places: int, machine: Path = Path("/sys/devices/system/cpu")
) -> set[int]:
    """The processors for one of several processes, by their numbers; never none.

    Threads of one core and cores of one socket stay together: they share caches and memory.

    Args:
        place: which process, from 0.
        places: how many processes there are.
        machine: where the kernel tells which processors belong together.
    """
    cpus = sorted(os.sched_getaffinity(0), key=lambda cpu: (_position(machine, cpu), cpu))
    begin, end = len(cpus) * place // places, len(cpus) * (place + 1) // places
    return set(cpus[begin:end]) or {cpus[place % len(cpus)]}


def _position(machine: Path, cpu: int) -> tuple[int, int]:
    """Socket and core."""
    topology = machine / f"cpu{cpu}" / "topology"
    try:
        socket, core = (topology / "physical_package_id", topology / "core_id")
        return int(socket.read_text()), int(core.read_text())
    except (OSError, ValueError):
        return 0, 0


def cgroup_quota(root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc/self")) -> float:
    """Processors granted by the control groups around this process; infinite without a quota.

    Args:
        root: where control groups are mounted (version 2, or version 1 with ``cpu/`` below).
        proc: the process's folder; its ``cgroup`` file says which group it is in.
    """
    quotas = [_v2(folder) for folder in _upwards(root, _group(proc))]
    quotas += [_v1(folder) for folder in _upwards(root / "cpu", _group(proc, "cpu"))]
    return min(quotas, default=math.inf)


def _group(proc: Path, controller: str = "") -> str:
    """The process's group below the mount, e.g. ``/user.slice``; ``/`` when not told."""
    try:
        lines = (proc / "cgroup").read_text().splitlines()
    except OSError:
        return "/"
    for line in lines:  # "0::/path" in version 2, "4:cpu,cpuacct:/path" in version 1
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return "/"


def _upwards(root: Path, group: str) -> Iterator[Path]:
    """The group's folder and those above it: any of them may hold the quota."""
    folder = root / group.lstrip("/")
    yield from (f for f in (folder, *folder.parents) if f == root or root in f.parents)


def _v2(folder: Path) -> float:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return math.inf


def _v1(folder: Path) -> float:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return math.inf
    return quota / period if quota > 0 else math.inf
