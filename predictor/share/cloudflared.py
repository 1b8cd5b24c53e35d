"""Cloudflare's quick tunnels: no account, and no promise that they work."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context

from predictor.share.tunnel import Missing, Tunnel, TunnelError

PATIENCE_S = 30  # it may have to find out that one of its two protocols is blocked
GRACE_S = 2
ADDRESS = re.compile(r"https://(?!api\.)[a-z0-9-]+\.trycloudflare\.com")
CONNECTED = re.compile(r"\bregistered\b", re.IGNORECASE)
# A shell that runs the program and ends it, with all that it has started, when our end of the
# pipe closes: however we end. It keeps no copy of the log, whose end is the program's end.
GUARD = """
exec 3>&2 2>/dev/null
"$@" 2>&3 3>&- </dev/null &
exec 3>&-
read _
trap "" TERM
kill 0
command -p sleep 3
kill -9 0
"""


def open_cloudflared(address: str, _token: str | None = None) -> Tunnel:
    """By the ``cloudflared`` on the PATH; none is downloaded."""
    program = shutil.which("cloudflared")
    if program is None:
        raise Missing("it is not on the PATH")
    agent = Agent([program, "tunnel", "--no-autoupdate", "--url", address])
    try:
        return Tunnel(agent.url.result(PATIENCE_S), agent.close)
    except BaseException as error:
        agent.close()
        if isinstance(error, TimeoutError):
            raise TunnelError("it opened no tunnel in time") from None
        raise


class Agent:
    """A cloudflared that runs until it is closed, or this process ends.

    Attributes:
        url: will be the address, once it leads here: a name asked for earlier is unknown for
            minutes. Or a TunnelError with the agent's last words.
    """

    def __init__(self, command: list[str]) -> None:
        """Start it."""
        self.url: Future[str] = Future()
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", *command],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, errors="replace",
            start_new_session=True,  # or interrupting any cell of the notebook would end it
        )  # fmt: skip
        self._closing = False
        # The context tells a notebook to which cell a thread's output belongs.
        reader = copy_context().run
        self._reader = threading.Thread(target=reader, args=(self._read,), daemon=True)
        self._reader.start()

    def close(self) -> None:
        """End it, and what it has started; what does not go in time, by force."""
        self._closing = True
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._reader.join(GRACE_S)
        with suppress(ProcessLookupError, PermissionError):  # macOS: of a group that is dead
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(GRACE_S)  # what has left the group may hold the log open

    def _read(self) -> None:
        """To the end: it would stop when the pipe is full."""
        url, line = None, "without a word"
        assert self._process.stderr is not None
        with self._process.stderr as log:
            for line in log:
                url = found[0] if (found := ADDRESS.search(line)) else url
                if url and CONNECTED.search(line) and not self.url.done():
                    self.url.set_result(url)
        if not self.url.done():
            self.url.set_exception(TunnelError(f"it opened no tunnel ({line.strip()[:200]})"))
        elif not self._closing:
            print(" * cloudflared has ended, and the tunnel with it; run this again.", flush=True)
