"""The worker process: its slot, its health, its memory, and how it ends."""

import sys
from importlib.util import find_spec
from math import inf
from signal import SIGTERM
from time import monotonic
from typing import Any

from predictor.engine.memory import return_freed, share_arenas
from predictor.processes import is_running
from predictor.server.event_loop import DRAIN_S, EventLoopWorker
from predictor.server.reload import ReloadBoard

HANDOVER_S = 120.0  # for a replacement to load; then the old worker ends in any case
# A forward pass needs Python's lock for each operation, and may wait this long each time. With
# 0.2 ms, an image takes 3 % more of a processor.
SWITCH_S = 0.001
# Seconds after memory was freed. The next request asks the kernel for memory again, which takes
# some milliseconds; the trim itself takes less than one.
TRIM_AFTER_S = 5.0


class Worker(EventLoopWorker):
    """The worker that ``gunicorn.conf.py`` names.

    Attributes:
        slot: number of the worker, from 0.
        predecessor: pid of the process that held the slot before; 0 at the start.
    """

    _board: ReloadBoard

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Prepare a worker. This runs in the master, before the fork."""
        super().__init__(*args, **kwargs)
        self.slot, self.predecessor = 0, 0
        self._retires_by: float | None = None

    def assign(self, slot: int, board: ReloadBoard) -> None:
        """Take a slot from the process that holds it. The master calls this before the fork."""
        self.slot, self._board = slot, board
        self.predecessor = board.reserve(slot)

    def init_process(self) -> None:
        """Begin to serve. This runs after the fork."""
        sys.setswitchinterval(SWITCH_S)
        share_arenas()
        super().init_process()

    def load_wsgi(self) -> None:
        """Import the app. Without torch, the models load meanwhile: a small one takes as long.

        Torch's import holds Python's lock: the server would answer its first probes later.
        """
        # Another app may have another store.
        if self.app.app_uri == "wsgi:app" and find_spec("torch") is None:
            from predictor.store.folder import process_store  # not in the master

            process_store().start()
        super().load_wsgi()

    def notify(self) -> None:
        """Send the heartbeat. If the model hangs or has stopped, answer all requests and end.

        gunicorn then replaces this worker.
        """
        super().notify()
        self._trim_memory()
        self.alive: bool
        if self._retires_by is not None:
            self._look_for_replacement(self._retires_by)
        if self.store is None or not self.alive:
            return
        if self.nr >= self.max_requests:
            self._board.mark_worn(self.slot)
        loading = self.store.loading
        loaded = loading.done() and loading.exception() is None
        if loaded and (reason := self.store.unhealthy_reason()) is not None:
            self.log.error("This worker ends, and gunicorn starts another. Reason: %s", reason)
            self.store.abandon()
            self.alive = False

    def _trim_memory(self) -> None:
        """Return freed memory to the kernel between two requests. The C library would keep it."""
        if monotonic() < self.freed_at + TRIM_AFTER_S:
            return
        if not any(connection.state == "working" for connection in self.connections):
            self.freed_at = inf
            return_freed()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """On SIGTERM, finish the requests in progress.

        If there is a replacement, first wait for it to be ready. gunicorn repeats the signal
        meanwhile. If this process is a replacement that is told to end, so is the old process. If
        it loads itself, the old process waits, and this one would only take memory.
        """
        self._board.mark_ready(self.slot)
        loads = self.store is None or not self.store.loading.done()
        if self._board.is_replacement_loading(self.slot) and not loads:
            self._retires_by = self._retires_by or monotonic() + HANDOVER_S
        elif self._retires_by is None and self.alive:
            if self.store is not None:
                self.store.process.draining = True
            super().handle_exit(SIGTERM, None)

    def _look_for_replacement(self, until: float) -> None:
        """End once the replacement is ready. If it failed, stay, and count requests from 0."""
        if self._board.is_replacement_loading(self.slot) and monotonic() < until:
            return
        self._retires_by = None
        if monotonic() >= until or not self._board.has_replacement_failed(self.slot):
            # This process may take its time to end: the server is ready, and it says so to those
            # who are connected to it. Its last seconds are for the model.
            self.drain_s = max(DRAIN_S, self.cfg.graceful_timeout - DRAIN_S)
            super().handle_exit(SIGTERM, None)
        else:
            self.nr = 0
            self._board.claim(self.slot)
            self._board.mark_ready(self.slot)
            self.log.error("The replacement failed. This process continues to serve.")

    def may_accept(self) -> bool:
        """Accept nothing while the model loads if another process of this server can answer."""
        loading = self.store is not None and not self.store.loading.done()
        return not (loading and (is_running(self.predecessor) or self._board.is_any_ready()))
