"""Which processes run. The kernel gives the id of an ended process to a later one."""

import os
from pathlib import Path


def is_running(pid: int) -> bool:
    """Return whether a process runs. A zombie, which has ended but was not waited for, does not."""
    return identity(pid) is not None


def identity(pid: int) -> str | None:
    """Return the id and the start time of a running process, which no other process has.

    None if it does not run. Systems without /proc (macOS) tell no start time.
    """
    if pid <= 0:
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return str(pid) if not Path("/proc/self").exists() and _answers_signals(pid) else None
    return None if fields[0] in "ZX" else f"{pid}-{fields[19]}"


def _answers_signals(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
