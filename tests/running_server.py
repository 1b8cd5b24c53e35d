"""A real gunicorn, as an operator starts it, on loopback and a port of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests

from paths import ROOT
from waiting import wait_until

# What a developer's own shell may have set.
SETTING = re.compile("PREDICTOR_|WEB_CONCURRENCY$|HOST$|PORT$|CUDA_VISIBLE_DEVICES$")


class Server:
    """Starts gunicorn with the settings given; ended by its own process id.

    ``command`` starts it in another way than ``python -m gunicorn``, in ``folder``.
    ``under`` is a command that becomes it, such as ``setpriv``.
    """

    def __init__(
        self,
        *options: str,
        under: Sequence[str] = (),
        app: str = "wsgi:app",
        command: Sequence[str] = (),
        folder: Path = ROOT,
        **settings: Any,
    ) -> None:
        self._log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115
        environ = {name: value for name, value in os.environ.items() if not SETTING.match(name)}
        settings = {"log_format": "text"} | settings  # which the tests and their readers read
        environ |= {f"PREDICTOR_{name.upper()}": str(value) for name, value in settings.items()}
        command = command or [sys.executable, "-m", "gunicorn", app]
        self.process = subprocess.Popen(
            [*under, *command, *options],
            cwd=folder,
            env={**environ, "PORT": "0"},
            stdout=self._log,
            stderr=self._log,
        )

    def close(self) -> None:
        """Stop, and throw the log away."""
        if self.process.poll() is None:
            self.stop()
        self._log.close()

    @property
    def log(self) -> str:
        return Path(self._log.name).read_text()

    @property
    def url(self) -> str:
        found = wait_until(
            lambda: re.search(r"Listening at: (https?://\S+)", self.log) or self._check_alive()
        )
        return str(found[1])

    @property
    def worker(self) -> int:
        """The process id of the worker booted last."""
        return int(re.findall(r"Booting worker with pid: (\d+)", self.log)[-1])

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
        """SIGTERM; the exit status. One that does not end by itself is not left behind."""
        self.process.terminate()
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def _check_alive(self) -> None:
        assert self.process.poll() is None, self.log
