"""The fakes, as programs and as modules; and any Flask app, shared by a provider of the test's."""

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

FAKES = Path(__file__).parent / "fakes"


def install(name: str, folder: Path, program: str | None = None) -> Path:
    """Make a fake a program of this name."""
    source = (FAKES / name).read_text()
    path = folder / (program or name.removesuffix(".py"))
    path.write_text(f"#!{sys.executable}\n{source}")
    path.chmod(0o755)
    return path


def use_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ``ngrok`` and ``google.colab`` be the fakes."""
    colab = "google.colab"
    for name in ("ngrok", "google", colab, f"{colab}.userdata", f"{colab}.output"):
        monkeypatch.setitem(sys.modules, name, None)  # remembered, and undone with the test
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(FAKES)
    monkeypatch.setattr("IPython.get_ipython", object)  # a notebook's own process has one


@contextmanager
def pyngrok_with(program: Path) -> Iterator[None]:
    """Have pyngrok use this agent, and a configuration beside it; the agent is ended."""
    before = conf.get_default()
    config_path = str(program.with_name("ngrok.yml"))
    conf.set_default(conf.PyngrokConfig(ngrok_path=str(program), config_path=config_path))
    yield
    ngrok.kill()
    conf.set_default(before)


def is_running(process: Path) -> bool:
    """Tell whether the process whose id is in the file is running; a zombie is not."""
    try:
        return psutil.Process(int(process.read_text())).status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, psutil.NoSuchProcess):
        return False


class Provider:
    """Opens tunnels that lead nowhere, and remembers them."""

    def __init__(self):
        self.open, self.closed = [], []

    def __call__(self, address, token):
        assert requests.get(address, timeout=10).text == "hello"  # it is served already
        url = f"https://{len(self.open) + len(self.closed)}.example.org"
        self.open.append(url)
        return Tunnel(url, lambda: self._close(url))

    def _close(self, url):
        self.open.remove(url)
        self.closed.append(url)


@pytest.fixture
def provider():
    return Provider()


def make_plain(name="plain"):
    app = Flask(name)
    app.add_url_rule("/name", view_func=lambda: name, endpoint="name")
    app.add_url_rule("/", view_func=lambda: "hello")
    return app


@pytest.fixture
def plain():
    """Any Flask app: it has nothing of ours."""
    return make_plain()


@pytest.fixture
def run():
    """The two lines, in the background; what they opened is closed at the end."""
    lanes = []

    def run(app, provider, *args, background=True, **options):
        run_with_ngrok(app, provider)
        lanes.append(app.run(*args, background=background, **options))
        return lanes[-1]

    yield run
    for share in lanes:
        share.close()


@pytest.fixture
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def none(_address, _token):
    raise TunnelError("there is none today")
