"""Follows files by polling them: links that are swapped and network file systems send no events."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from predictor.errors import PredictorError

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Watched:
    """Some files, and what to do when they change."""

    paths: Callable[[], Iterable[Path]]
    changed: Callable[[], None]
    followed: object = None  # the signatures of the files when ``changed`` last succeeded
    logged: str = ""  # the error of the last poll


class Watch:
    """Polls files in one thread, and calls a function when they have changed."""

    def __init__(self, poll_s: float = 1.0) -> None:
        """Watch nothing yet. Between two polls ``poll_s`` seconds pass."""
        self._poll_s = poll_s
        self._watched: list[Watched] = []
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._thread = threading.Thread()

    def add(self, paths: Callable[[], Iterable[Path]], changed: Callable[[], None]) -> None:
        """Call ``changed`` at the first poll, and after each change of the files.

        ``paths`` is called at each poll. If a function raises an error, the watch logs it once, and
        calls the function again at each poll until it succeeds. ``changed`` is called by the thread
        of the watch, which must not wait long.
        """
        self._watched.append(Watched(paths, changed))

    def start(self) -> None:
        """Poll now and from now on. Further calls do nothing, except in a forked process.

        Without anything to watch, no thread is started.
        """
        if not self._watched or self._thread.is_alive() or self._closed.is_set():
            return
        with self._lock:
            if not self._thread.is_alive():
                self.poll()
                self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def poll(self) -> None:
        """Look for changes once."""
        for watched in list(self._watched):
            try:
                found = {path: signature(path) for path in watched.paths()}
                if found != watched.followed:
                    watched.changed()
                    watched.followed = found
                watched.logged = ""
            except Exception as error:
                if watched.logged != str(error):
                    log.error("%s", error, exc_info=not isinstance(error, PredictorError))
                watched.logged = str(error)

    def _run(self) -> None:
        while not self._closed.wait(self._poll_s):
            self.poll()


def signature(path: Path) -> object:
    """Return what changes when a file is written or replaced, or a link on its path is.

    It is made of inode, size and time of what the path leads to, and of a folder's names. The time
    is also that of a change of the permissions, after which a file may be readable. It is
    None if nothing is there, or nothing that this process may see.
    """
    try:
        found = path.stat()
        names = sorted(os.listdir(path)) if path.is_dir() else ()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns, names
