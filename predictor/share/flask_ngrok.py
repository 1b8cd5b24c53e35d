"""Open tunnels with flask-ngrok 0.0.25, but with a current ngrok agent instead of its own.

Unchanged, flask-ngrok downloads an agent that ngrok no longer accepts. It asks the agent for the
URL only once, after a second, and supports only port 5000. ``auto`` never uses this provider.
"""

import os
import shlex
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlsplit

import requests

from predictor.share.advice import advise
from predictor.share.tunnel import Missing, Tunnel, TunnelError

AGENT_TUNNELS = "http://localhost:4040/api/tunnels"  # fixed in flask-ngrok
OPEN_TIMEOUT_S = 15
POLL_S = 0.2
# flask-ngrok runs `ngrok http 5000` and does not report the process id.
SCRIPT = """#!/bin/sh
echo $$ > {folder}/pid
exec {program} http {address} --log {folder}/log
"""


def open_flask_ngrok(address: str, token: str | None) -> Tunnel:
    """Open a tunnel with flask-ngrok and pyngrok's agent. This works only for root."""
    try:
        import flask_ngrok
        from pyngrok import conf, ngrok
        from pyngrok.exception import PyngrokError
    except ImportError as error:
        raise Missing(f"{error.name} is not installed (pip install flask-ngrok pyngrok)") from None
    # flask-ngrok sets its agent's mode to 777 instead of 0o777. Windows has no geteuid.
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        raise Missing("only root can run its agent; use ngrok or pyngrok")
    try:
        ngrok.install_ngrok()
    except (PyngrokError, OSError) as error:
        raise TunnelError(advise(error)) from None
    folder = Path(tempfile.gettempdir(), "ngrok")  # fixed in flask-ngrok
    put_agent(folder, conf.get_default().ngrok_path, address)
    if token:
        os.environ["NGROK_AUTHTOKEN"] = token  # the agent reads it; flask-ngrok passes none
    # flask-ngrok asks the agent for the URL too early, and fails. The agent continues to run.
    with suppress(requests.RequestException, LookupError, ValueError):
        flask_ngrok._run_ngrok()
    try:
        return Tunnel(_wait_for_url(folder, address, token), lambda: _end_agent(folder))
    except TunnelError:
        _end_agent(folder)
        raise


def put_agent(folder: Path, program: str, address: str) -> None:
    """Write the script that flask-ngrok will run as its agent. The script supports any port.

    Raise TunnelError if the folder belongs to another user: that user could replace the script.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise TunnelError(f"{folder} is a link or belongs to another user; remove it")
    folder.chmod(0o700)
    for name in ("ngrok", "pid", "log"):  # flask-ngrok may have downloaded its own agent before
        (folder / name).unlink(missing_ok=True)
    quoted = {"folder": shlex.quote(str(folder)), "program": shlex.quote(program)}
    (folder / "ngrok").write_text(SCRIPT.format(address=address, **quoted))


def _wait_for_url(folder: Path, address: str, token: str | None) -> str:
    deadline = monotonic() + OPEN_TIMEOUT_S
    log = folder / "log"
    while monotonic() < deadline:
        if url := _url_of(address):
            return url
        text = log.read_text(errors="replace") if log.exists() else ""
        if "ERR_NGROK_" in text:
            raise TunnelError(advise(text, token))
        sleep(POLL_S)
    raise TunnelError(f"its agent opened no tunnel within {OPEN_TIMEOUT_S} s")


def _url_of(address: str) -> str | None:
    """Return the public URL of the tunnel to our port. Another agent may use port 4040."""
    try:
        tunnels: list[dict[str, Any]] = requests.get(AGENT_TUNNELS, timeout=4).json()["tunnels"]
    except (requests.RequestException, LookupError, ValueError):
        return None
    port = urlsplit(address).port
    ours = (t for t in tunnels if str(t.get("config", {}).get("addr", "")).endswith(f":{port}"))
    return next((str(tunnel["public_url"]) for tunnel in ours), None)


def _end_agent(folder: Path) -> None:
    with suppress(OSError, ValueError):  # the agent has ended, or was never started
        pid = int((folder / "pid").read_text())
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
