"""A real gunicorn, started as an operator starts it, on a free port of this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from paths import ROOT
from waiting import wait_until

# Variables that the developer's shell may have set.
SETTING = re.compile("PREDICTOR_|WEB_CONCURRENCY$|HOST$|PORT$|CUDA_VISIBLE_DEVICES$")


class Server:
    """A running gunicorn.

    Args:
        options: gunicorn's command line.
        under: a command that replaces itself with gunicorn, such as ``setpriv``.
        app: the app to serve.
        command: starts the server in another way than ``python -m gunicorn``.
        folder: the folder to start it in.
        environ: further environment variables.
        settings: the app's settings, without ``PREDICTOR_``.
    """

    def __init__(
        self,
        *options: str,
        under: Sequence[str] = (),
        app: str = "wsgi:app",
        command: Sequence[str] = (),
        folder: Path = ROOT,
        environ: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self._log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115
        inherited = {name: value for name, value in os.environ.items() if not SETTING.match(name)}
        settings = {"log_format": "text"} | settings  # the tests search the log
        own = {f"PREDICTOR_{name.upper()}": str(value) for name, value in settings.items()}
        command = command or [sys.executable, "-m", "gunicorn", app]
        self.process = subprocess.Popen(
            [*under, *command, *options],
            cwd=folder,
            env={**inherited, **own, "PORT": "0", **(environ or {})},
            stdout=self._log,
            stderr=self._log,
        )

    def close(self) -> None:
        """Stop the server and delete the log."""
        if self.process.poll() is None:
            self.stop()
        self._log.close()

    @property
    def log(self) -> str:
        return Path(self._log.name).read_text()

    @property
    def url(self) -> str:
        found = wait_until(
            lambda: re.search(r"Listening at: (https?://[^\s,]+)", self.log) or self._check_alive()
        )
        return str(found[1])

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        url = urlsplit(self.url)
        assert url.hostname is not None
        assert url.port is not None
        return url.hostname, url.port

    @property
    def workers(self) -> list[int]:
        """The process ids of all workers that were started, the newest last."""
        return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", self.log)]

    @property
    def worker(self) -> int:
        """The process id of the worker that was started last."""
        return self.workers[-1]

    @property
    def loaded(self) -> int:
        """How many workers have loaded a model since the start."""
        return self.log.count("Ready at")

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=60)

    def predict(self, photo: bytes, **query: Any) -> requests.Response:
        return requests.post(f"{self.url}/predict", files={"file": photo}, params=query, timeout=60)

    def is_ready(self) -> bool:
        try:
            return self.get("/readyz").status_code == 200
        except requests.ConnectionError:
            return False

    def wait_until_ready(self) -> Server:
        wait_until(lambda: self._check_alive() or self.is_ready())
        return self

    def stop(self) -> int:
        """Send SIGTERM and return the exit status; kill a server that does not end."""
        self.process.terminate()
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def _check_alive(self) -> None:
        assert self.process.poll() is None, self.log


class ToyServer(Server):
    """A gunicorn with the toy model of ``faulty.py``, which starts sooner: it needs no torch."""

    def __init__(
        self, *options: str, environ: Mapping[str, str] | None = None, **settings: Any
    ) -> None:
        environ = {"FAULTY_LOAD_S": "0", **(environ or {})}
        options = ("--pythonpath", "tests", *options)
        super().__init__(*options, app="faulty:app", environ=environ, **settings)
