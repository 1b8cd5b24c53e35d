"""A reload without a gap: the old process serves until the new one can.

gunicorn ends the old processes as soon as it has started new ones, which load for seconds.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

SEATS = 1000  # as many as WEB_CONCURRENCY allows
SLOT = struct.Struct("=q?")  # a process id, and whether that process can answer
COMING = 0  # instead of a process id: it is being forked


class Handover:
    """Who serves in each seat, in memory that the master and all its processes share."""

    def __init__(self) -> None:
        """All seats are empty."""
        self._shared = mmap.mmap(-1, SEATS * SLOT.size)

    def expect(self, seat: int) -> int:
        """In the master, before a fork: another comes. The process that has the seat."""
        predecessor, _ = self._read(seat)
        self._write(seat, COMING, False)
        return predecessor

    def arrive(self, seat: int) -> None:
        """In the process that came."""
        self._write(seat, os.getpid(), False)

    def be_ready(self, seat: int) -> None:
        """In the process that came, when it can answer."""
        if self._read(seat)[0] == os.getpid():
            self._write(seat, os.getpid(), True)

    def is_succeeded(self, seat: int) -> bool:
        """In a process told to end: whether another has its seat and cannot answer yet."""
        successor, ready = self._read(seat)
        return successor != os.getpid() and not ready and (successor == COMING or lives(successor))

    def failed(self, seat: int) -> bool:
        """In a process told to end: whether the other that took its seat ended before it."""
        successor, ready = self._read(seat)
        return successor != os.getpid() and not ready and not lives(successor)

    def _read(self, seat: int) -> tuple[int, bool]:
        pid, ready = SLOT.unpack_from(self._shared, seat % SEATS * SLOT.size)
        return pid, ready

    def _write(self, seat: int, pid: int, ready: bool) -> None:
        SLOT.pack_into(self._shared, seat % SEATS * SLOT.size, pid, ready)


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
