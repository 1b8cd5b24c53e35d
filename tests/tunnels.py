"""Fakes of the programs and modules that open tunnels, and fixtures that share any Flask app."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests
from flask import Flask
from pyngrok import conf, ngrok

from predictor.share import Tunnel, TunnelError, run_with_ngrok
from waiting import wait_until

FAKES = Path(__file__).parent / "fakes"


def install(name: str, folder: Path, program: str | None = None) -> Path:
    """Install a fake in the folder as a program, under its own name or the one given."""
    source = (FAKES / name).read_text()
    path = folder / (program or name.removesuffix(".py"))
    path.write_text(f"#!{sys.executable}\n{source}")
    path.chmod(0o755)
    return path


def use_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``import ngrok`` and ``import google.colab`` import the fakes."""
    colab = "google.colab"
    for name in ("ngrok", "google", colab, f"{colab}.userdata", f"{colab}.output"):
        monkeypatch.setitem(sys.modules, name, None)  # so that the end of the test restores it
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(FAKES)
    monkeypatch.setattr("IPython.get_ipython", object)  # not None, as in a notebook's process


@contextmanager
def pyngrok_with(program: Path) -> Iterator[None]:
    """Make pyngrok use this agent, with a configuration file in the same folder; end it after."""
    before = conf.get_default()
    config_path = str(program.with_name("ngrok.yml"))
    conf.set_default(conf.PyngrokConfig(ngrok_path=str(program), config_path=config_path))
    yield
    ngrok.kill()
    conf.set_default(before)


def is_running(process: Path) -> bool:
    """Whether the process whose id is in the file is running; a zombie is not."""
    try:
        return psutil.Process(int(process.read_text())).status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, psutil.NoSuchProcess):
        return False


def wait_until_ended(process: Path) -> None:
    """Wait until the process whose id is in the file has ended."""
    wait_until(lambda: not is_running(process))


class Provider:
    """Opens tunnels that lead nowhere, and records which are open and which are closed."""

    def __init__(self):
        self.open, self.closed = [], []

    def __call__(self, address, token):
        assert requests.get(address, timeout=10).text == "hello"  # the app is already being served
        url = f"https://{len(self.open) + len(self.closed)}.example.org"
        self.open.append(url)
        return Tunnel(url, lambda: self._close(url))

    def _close(self, url):
        self.open.remove(url)
        self.closed.append(url)


@pytest.fixture
def provider():
    return Provider()


def fail_to_open(_address, _token):
    """A provider that cannot open a tunnel."""
    raise TunnelError("out of order")


def open_example(_address, _token):
    """A provider whose tunnel leads nowhere."""
    return Tunnel("https://x.example.org", lambda: None)


def make_plain(name="plain"):
    """Any Flask app, with nothing of ours."""
    app = Flask(name)
    app.add_url_rule("/name", view_func=lambda: name, endpoint="name")
    app.add_url_rule("/", view_func=lambda: "hello")
    return app


@pytest.fixture
def plain():
    return make_plain()


@pytest.fixture
def run():
    """Run an app by the two lines, in the background; the shares are closed after the test."""
    shares = []

    def run(app, provider, *args, background=True, **options):
        run_with_ngrok(app, provider)
        shares.append(app.run(*args, background=background, **options))
        return shares[-1]

    yield run
    for share in shares:
        share.close()


@pytest.fixture
def printed(capsys):
    """What was printed since the last call, without line breaks."""
    return lambda: " ".join(capsys.readouterr().out.split())


@pytest.fixture
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]
