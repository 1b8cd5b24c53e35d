"""flask-ngrok 0.0.25, given an agent of today where it looks for its own.

By itself it downloads one that ngrok has long refused, asks it once, after a second, and knows
no port but 5000. It is used only where it is chosen by name.
"""

from __future__ import annotations

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

AGENTS_TUNNELS = "http://localhost:4040/api/tunnels"  # flask-ngrok asks there and nowhere else
PATIENCE_S = 15
POLL_S = 0.2
# flask-ngrok runs `ngrok http 5000` and tells nobody which process that is.
SCRIPT = """#!/bin/sh
echo $$ > {folder}/pid
exec {program} http {address} --log {folder}/log
"""


def open_flask_ngrok(address: str, token: str | None) -> Tunnel:
    """By flask-ngrok, with pyngrok's agent."""
    try:
        import flask_ngrok
        from pyngrok import conf, ngrok
        from pyngrok.exception import PyngrokError
    except ImportError as error:
        raise Missing(f"{error.name} is not installed (pip install flask-ngrok pyngrok)") from None
    if not _is_root():  # it does chmod 777 where it means 0o777
        raise Missing("it makes its agent executable for root alone; take ngrok or pyngrok")
    try:
        ngrok.install_ngrok()
    except (PyngrokError, OSError) as error:
        raise TunnelError(advise(error)) from None
    folder = Path(tempfile.gettempdir(), "ngrok")  # flask-ngrok's choice
    put_agent(folder, conf.get_default().ngrok_path, address)
    if token:
        os.environ["NGROK_AUTHTOKEN"] = token  # it passes none on; the agent looks there, too
    with suppress(requests.RequestException, LookupError, ValueError):  # it does not wait
        flask_ngrok._run_ngrok()
    try:
        return Tunnel(_wait_for_url(folder, address, token), lambda: _end_agent(folder))
    except TunnelError:
        _end_agent(folder)
        raise


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def put_agent(folder: Path, program: str, address: str) -> None:
    """Put a script into the folder that becomes the agent, for whichever port.

    Raises:
        TunnelError: the folder is another user's, who would choose what we run.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise TunnelError(f"{folder} belongs to somebody else; remove it")
    folder.chmod(0o700)
    for name in ("ngrok", "pid", "log"):  # also what flask-ngrok has downloaded earlier
        (folder / name).unlink(missing_ok=True)
    quoted = {"folder": shlex.quote(str(folder)), "program": shlex.quote(program)}
    (folder / "ngrok").write_text(SCRIPT.format(address=address, **quoted))


def _wait_for_url(folder: Path, address: str, token: str | None) -> str:
    deadline = monotonic() + PATIENCE_S
    log = folder / "log"
    while monotonic() < deadline:
        if url := _url_of(address):
            return url
        said = log.read_text(errors="replace") if log.exists() else ""
        if "ERR_NGROK_" in said:
            raise TunnelError(advise(said, token))
        sleep(POLL_S)
    raise TunnelError(f"its agent opened no tunnel in {PATIENCE_S} s")


def _url_of(address: str) -> str | None:
    """The public address of the tunnel that leads to ours: another agent may have that port."""
    try:
        tunnels: list[dict[str, Any]] = requests.get(AGENTS_TUNNELS, timeout=4).json()["tunnels"]
    except (requests.RequestException, LookupError, ValueError):
        return None
    port = urlsplit(address).port
    ours = (t for t in tunnels if str(t.get("config", {}).get("addr", "")).endswith(f":{port}"))
    return next((str(tunnel["public_url"]) for tunnel in ours), None)


def _end_agent(folder: Path) -> None:
    with suppress(OSError, ValueError):  # it has ended, or never began
        pid = int((folder / "pid").read_text())
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
