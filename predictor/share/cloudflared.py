"""Cloudflare's quick tunnels, which need no account and have no guarantee of service."""

import os
import re
import shutil
import signal
import subprocess
import threading
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path

from predictor.share.tunnel import Missing, Tunnel, TunnelError

OPEN_TIMEOUT_S = 30  # enough for cloudflared to find that one of its two protocols is blocked
GRACE_S = 2
ADDRESS = re.compile(r"https://(?!api\.)[a-z0-9-]+\.trycloudflare\.com")
CONNECTED = re.compile(r"\bregistered\b", re.IGNORECASE)
GUARD = Path(__file__).with_name("guard.sh")


def open_cloudflared(address: str, _token: str | None = None) -> Tunnel:
    """Open a tunnel with the ``cloudflared`` on the PATH. Never download it."""
    if (program := shutil.which("cloudflared")) is None:
        raise Missing("it is not on the PATH")
    agent = _Agent([program, "tunnel", "--no-autoupdate", "--url", address])
    try:
        return Tunnel(agent.url.result(OPEN_TIMEOUT_S), agent.close)
    except BaseException as error:
        agent.close()
        if isinstance(error, TimeoutError):
            raise TunnelError(f"it opened no tunnel within {OPEN_TIMEOUT_S} s") from None
        raise


class _Agent:
    """A cloudflared process. It runs until :meth:`close` is called or this process ends.

    ``url`` gets the public URL once cloudflared has registered the connection. A DNS lookup before
    that would fail, and the failure would be cached for minutes. If cloudflared ends first,
    ``url`` gets a TunnelError with the last line of cloudflared's log.
    """

    def __init__(self, command: list[str]) -> None:
        self.url: Future[str] = Future()
        self._process = subprocess.Popen(
            ["/bin/sh", str(GUARD), *command],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, errors="replace",
            start_new_session=True,  # otherwise interrupting any cell would end cloudflared
        )  # fmt: skip
        self._closing = False
        # With the context, a notebook shows the thread's output below the right cell.
        run = copy_context().run
        self._reader = threading.Thread(target=run, args=(self._read,), daemon=True)
        self._reader.start()

    def close(self) -> None:
        """End cloudflared and all it has started. After ``GRACE_S`` seconds, send SIGKILL."""
        self._closing = True
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._reader.join(GRACE_S)
        # macOS raises PermissionError for a group whose processes are all dead.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(GRACE_S)  # no longer: a process outside the group may hold the log open

    def _read(self) -> None:
        """Read the log to its end. Otherwise the pipe would fill and block cloudflared."""
        url, line = None, "its log is empty"
        assert self._process.stderr is not None
        with self._process.stderr as log:
            for line in log:
                url = found[0] if (found := ADDRESS.search(line)) else url
                if url and CONNECTED.search(line) and not self.url.done():
                    self.url.set_result(url)
        if not self.url.done():
            error = TunnelError(f"it ended without opening a tunnel ({line.strip()[:200]})")
            self.url.set_exception(error)
        elif not self._closing:
            print(" * cloudflared has ended, so the tunnel is closed; run this again.", flush=True)
