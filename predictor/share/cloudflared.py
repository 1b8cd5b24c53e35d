"""Cloudflare's quick tunnels: no account, and no promise that they work."""

from __future__ import annotations

import atexit
import re
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Iterable

from predictor.share.tunnel import Missing, Tunnel, TunnelError

PATIENCE_S = 30  # it may have to find out that one of its two protocols is blocked
GRACE_S = 2
ADDRESS = re.compile(r"https://(?!api\.)[a-z0-9-]+\.trycloudflare\.com")
CONNECTED = re.compile(r"\bregistered\b", re.IGNORECASE)


def open_cloudflared(address: str, _token: str | None = None) -> Tunnel:
    """By the ``cloudflared`` on the PATH; none is downloaded."""
    program = shutil.which("cloudflared")
    if program is None:
        raise Missing("it is not on the PATH")
    agent = subprocess.Popen(
        [program, "tunnel", "--no-autoupdate", "--url", address],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, errors="replace",
        start_new_session=True,  # or interrupting any cell of the notebook would end it
    )  # fmt: skip
    assert agent.stderr is not None
    log = agent.stderr
    atexit.register(agent.kill)
    alarm = threading.Timer(PATIENCE_S, agent.kill)
    alarm.daemon = True
    alarm.start()
    url, words = _read(log)
    alarm.cancel()
    if url is None:
        _end(agent)
        log.close()
        raise TunnelError(f"it opened no tunnel ({words})")
    # What it writes from now on has to be read, or it would stop when the pipe is full.
    reader = threading.Thread(target=deque, args=(log, 0), daemon=True)
    reader.start()

    def close() -> None:
        _end(agent)
        reader.join()
        log.close()

    return Tunnel(url, close)


def _read(lines: Iterable[str]) -> tuple[str | None, str]:
    """The address, once it leads here: a name asked for earlier is unknown for minutes.

    Or None, and the last words.
    """
    url, line = None, "without a word"
    for line in lines:
        url = found[0] if (found := ADDRESS.search(line)) else url
        if url and CONNECTED.search(line):
            return url, line
    return None, line.strip()[:200]


def _end(agent: subprocess.Popen[str]) -> None:
    agent.terminate()
    try:
        agent.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        agent.kill()
        agent.wait()
    atexit.unregister(agent.kill)
