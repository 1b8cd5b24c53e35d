"""Would a model fit into the memory? Asked before it is loaded: the kernel kills without asking."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from predictor.engine.cpus import cgroups
from predictor.errors import StoreError
from predictor.models.shared_weights import identify, is_shared

MIB = 1024 * 1024
# The most memory while a model is loaded and warmed up, in sizes of its file, in float32, of VGG16
# (528 MiB) and ResNet-18 (45 MiB): torch's old format 2.0 and 2.1, .pth 1.3 and 1.8 (both shared),
# ONNX 2.0 and 3.4, TorchScript 1.2 and 2.2, pt2 1.3 and 2.4. The margin is for small files, and for
# a model whose weights are mapped, which took up to 161 MiB (November 2026).
FACTOR, MARGIN = 2.2, 192 * MIB

# Of a control group: its limit, its usage, and the part of its usage in memory.stat that the kernel
# gives up first, the cache of files that nobody uses.
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = ("memory.max", "memory.current", "inactive_file")


def require_room(files: Iterable[Path], shared: Sequence[int] = ()) -> None:
    """Raise an error if a model's files are too large to be loaded now.

    ``shared`` is ``settings.shared_weights``. Weights that a process holds there count nothing,
    since they are only mapped. If a process is loading weights, wait for it.

    Raises:
        StoreError: loading needs more memory than is available; the message has both numbers.
        OSError: a file does not exist.
    """
    size = sum(file.stat().st_size for file in files if not _is_mapped(file, shared))
    needed, available = FACTOR * size + MARGIN, available_memory()
    if needed > available:
        raise StoreError(
            f"Loading the model needs about {needed / MIB:,.0f} MiB of memory, and only"
            f" {max(0, available) / MIB:,.0f} MiB are available. Unload another model, or give the"
            " server more memory."
        )


def _is_mapped(file: Path, shared: Sequence[int]) -> bool:
    """Return whether these weights are shared, named by their file or by its folder."""
    return any(is_shared(shared, identify(path)) for path in (file, file.parent))


def available_memory(root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> float:
    """Return the bytes that this process can still get; infinity on macOS and Windows.

    The least of what the machine has and what the process's control groups leave, which are mounted
    at ``root`` (version 2) or at ``root/memory`` (version 1).
    """
    found = [_machine(proc)]
    found += [_left(group, *VERSION_2) for group in cgroups(root, proc / "self")]
    found += [
        _left(group, *VERSION_1) for group in cgroups(root / "memory", proc / "self", "memory")
    ]
    return min(found)


def _machine(proc: Path) -> float:
    try:
        return 1024 * _figure(proc / "meminfo", "MemAvailable:")
    except (OSError, ValueError):
        return math.inf


def _left(group: Path, limit: str, usage: str, reclaimable: str) -> float:
    try:
        most = int((group / limit).read_text())  # ValueError: "max"
        cache = _figure(group / "memory.stat", reclaimable)
        return most - int((group / usage).read_text()) + cache
    except (OSError, ValueError):
        return math.inf


def _figure(path: Path, name: str) -> int:
    """Return the number after a name at the start of a line. Raise ValueError if none has it."""
    lines = (line.split() for line in path.read_text().splitlines())
    found = next((line[1] for line in lines if line and line[0] == name), "")
    return int(found)
