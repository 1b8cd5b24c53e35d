"""Count the processors that this process may use.

``os.cpu_count()`` counts the processors of the machine. A container may use fewer, because of its
affinity or its quota. A container with one thread for each processor of the machine would be
throttled to a fraction of its speed.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path


def available_cpus() -> int:
    """Return the smaller of CPU affinity and control-group quota, rounded down; at least 1."""
    try:
        affinity = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has neither affinity nor control groups
        affinity = os.cpu_count() or 1
    return max(1, math.floor(min(affinity, cgroup_quota())))


def cpus_for_process(
    index: int, count: int, machine: Path = Path("/sys/devices/system/cpu")
) -> set[int]:
    """Return the numbers of the processors for process ``index`` of ``count``; at least one.

    Threads of one core and cores of one socket stay together: they share caches and memory. The
    kernel describes the processors in the folder ``machine``.
    """
    cpus = sorted(os.sched_getaffinity(0), key=lambda cpu: (_position(machine, cpu), cpu))
    begin, end = len(cpus) * index // count, len(cpus) * (index + 1) // count
    return set(cpus[begin:end]) or {cpus[index % len(cpus)]}


def _position(machine: Path, cpu: int) -> tuple[int, int]:
    """Return the numbers of the processor's socket and core."""
    topology = machine / f"cpu{cpu}" / "topology"
    try:
        socket, core = topology / "physical_package_id", topology / "core_id"
        return int(socket.read_text()), int(core.read_text())
    except (OSError, ValueError):
        return 0, 0


def cgroup_quota(root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc/self")) -> float:
    """Return how many processors the control groups grant this process; infinity without quota.

    The control groups are mounted at ``root`` (version 2) or at ``root/cpu`` (version 1).
    """
    quotas = [_v2(folder) for folder in cgroups(root, proc)]
    quotas += [_v1(folder) for folder in cgroups(root / "cpu", proc, "cpu")]
    return min(quotas, default=math.inf)


def _group(proc: Path, controller: str = "") -> str:
    """Return the group's path below the mount, like ``/user.slice``; ``/`` if unknown."""
    try:
        lines = (proc / "cgroup").read_text().splitlines()
    except OSError:
        return "/"
    for line in lines:  # "0::/path" in version 2, "4:cpu,cpuacct:/path" in version 1
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return "/"


def cgroups(root: Path, proc: Path, controller: str = "") -> Iterator[Path]:
    """Yield the folder of the process's group and of each parent group: each may have a limit.

    ``controller`` is mounted at ``root`` (version 1); none: version 2. ``proc`` is a process's
    folder in /proc.
    """
    folder = root / _group(proc, controller).lstrip("/")
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
