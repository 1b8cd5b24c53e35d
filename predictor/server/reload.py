"""A replacement without a gap: the old process serves until the new one can answer.

gunicorn ends the old processes as soon as it has started new ones, which then load for seconds.
This holds for a reload, and for a process that has served ``--max-requests``.
"""

import mmap
import os
import struct

from predictor.processes import is_running

MAX_SLOTS = 1000  # as many as WEB_CONCURRENCY allows
# The id of a process, its state, and the id of the process that answers until this one can, or 0.
ENTRY = struct.Struct("=qbq")
LOADING, READY, WORN = 0, 1, 2  # a worn process can answer, and asks for a replacement
FORKING = 0  # stands for the id of a process that is being forked


class ReloadBoard:
    """Says which process holds each worker slot. The master and all workers share its memory.

    While a process is replaced, a slot has two: the old one, and its replacement, which holds it.
    """

    def __init__(self) -> None:
        """Create the board with all slots free."""
        self._shared = mmap.mmap(-1, MAX_SLOTS * ENTRY.size)

    def reserve(self, slot: int) -> int:
        """Called by the master before it forks a worker. Return the pid that holds the slot now."""
        predecessor, state, answers = self._read(slot)
        self._write(slot, FORKING, LOADING, answers if state == LOADING else predecessor)
        return predecessor

    def claim(self, slot: int) -> None:
        """Called by the new worker. Record that this process holds the slot."""
        self._write(slot, os.getpid(), LOADING, self._read(slot)[2])

    def mark_ready(self, slot: int) -> None:
        """Called by a worker when it can answer. Does nothing if another process holds the slot."""
        if self._read(slot)[0] == os.getpid():
            self._write(slot, os.getpid(), READY)

    def mark_worn(self, slot: int) -> None:
        """Called by a worker: ask for a replacement. Does nothing if there is one already."""
        if self._read(slot)[:2] == (os.getpid(), READY):
            self._write(slot, os.getpid(), WORN)

    def is_worn(self, slot: int) -> bool:
        """Called by the master. Return whether the slot's process asks for a replacement."""
        return self._read(slot)[1] == WORN

    def is_replacement_loading(self, slot: int) -> bool:
        """Called by a worker that got SIGTERM. Return whether its replacement is still starting."""
        pid, state, _ = self._read(slot)
        return pid != os.getpid() and state == LOADING and (pid == FORKING or is_running(pid))

    def has_replacement_failed(self, slot: int) -> bool:
        """Called by a worker that got SIGTERM. Return whether its replacement ended unready."""
        pid, state, _ = self._read(slot)
        return pid != os.getpid() and state == LOADING and not is_running(pid)

    def is_any_ready(self) -> bool:
        """Return whether a running process can answer: of a slot, or one that is replaced."""
        entries = ENTRY.iter_unpack(self._shared)
        return any(
            is_running(answers if state == LOADING else pid) for pid, state, answers in entries
        )

    def _read(self, slot: int) -> tuple[int, int, int]:
        pid, state, answers = ENTRY.unpack_from(self._shared, slot % MAX_SLOTS * ENTRY.size)
        return pid, state, answers

    def _write(self, slot: int, pid: int, state: int, answers: int = 0) -> None:
        ENTRY.pack_into(self._shared, slot % MAX_SLOTS * ENTRY.size, pid, state, answers)
