"""Real proxies that serve the app below a path: Debian's nginx, and jupyter-server-proxy."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from paths import ROOT
from waiting import wait_until

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
JUPYTER = ROOT / os.environ.get("JUPYTER", ".venv-jupyter") / "bin" / "jupyter-server"
# nginx may run as root or not, and writes only below its folder.
CONFIGURATION = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;
events {{}}
http {{
  access_log off; client_max_body_size 20m; {temporary}
  server {{
    listen 127.0.0.1:{port};
    location /told/photos/ {{
      proxy_pass {url}/; proxy_set_header X-Forwarded-Prefix /told/photos;
    }}
    location /untold/photos/ {{ proxy_pass {url}/; }}
    location /whole/ {{ proxy_pass {url}; }}
  }}
}}
"""
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def running(command: list[str], url: str, **options: object) -> Iterator[str]:
    """Run a proxy until the end of the block; give its URL."""
    process = subprocess.Popen(command, **options)  # type: ignore[call-overload]
    try:
        wait_until(lambda: is_open(url) or process.poll() is not None)
        assert process.poll() is None
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


def is_open(url: str) -> bool:
    try:
        return bool(requests.get(url, timeout=60).status_code)
    except requests.ConnectionError:
        return False


@contextmanager
def nginx(url: str, folder: Path) -> Iterator[str]:
    """Run nginx before the app at ``url``."""
    if NGINX is None:
        pytest.skip("no nginx on this machine (Debian: apt-get install nginx-light)")
    port = free_port()
    temporary = " ".join(f"{name}_temp_path {folder}/{name};" for name in TEMPORARY)
    path = folder / "nginx.conf"
    path.write_text(CONFIGURATION.format(folder=folder, port=port, url=url, temporary=temporary))
    with running([NGINX, "-c", str(path), "-p", str(folder)], f"http://127.0.0.1:{port}") as proxy:
        yield proxy


@contextmanager
def jupyter(folder: Path, token: str) -> Iterator[str]:
    """Run a Jupyter server that passes ``/proxy/<port>/`` to that port of this machine."""
    if not JUPYTER.exists():
        pytest.skip("jupyter-server-proxy is not installed; make test does that")
    port = free_port()
    settings = {"port": port, "port_retries": 0, "open_browser": False, "root_dir": folder}
    options = [f"--ServerApp.{name}={value}" for name, value in settings.items()]
    options += ["--allow-root", f"--IdentityProvider.token={token}"]
    folders = {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "RUNTIME", "DATA")}
    url = f"http://127.0.0.1:{port}"
    with (
        (folder / "log").open("w") as log,
        running(
            [str(JUPYTER), *options], url, env=os.environ | folders, stdout=log, stderr=log
        ) as proxy,
    ):
        yield proxy
