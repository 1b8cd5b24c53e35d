"""Real servers for the tests of this folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from skimage import data

from pictures import encode
from predictor import settings
from predictor.server import hooks
from running_server import Server, ToyServer


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Start servers, with the embedded model by default; they end with the test.

    Takes the arguments of :class:`running_server.Server`.
    """
    with ExitStack() as started:

        def run(*options: str, model: str = "efficientnet_lite0", **settings: Any) -> Server:
            server = Server(*options, model=model, **settings)
            started.callback(server.close)
            return server

        yield run


@pytest.fixture
def start_toy() -> Iterator[Callable[..., ToyServer]]:
    """Start servers with a toy model; they end with the test."""
    with ExitStack() as started:

        def run(*options: str, **settings: Any) -> ToyServer:
            server = ToyServer(*options, **settings)
            started.callback(server.close)
            return server

        yield run


@pytest.fixture
def start_faulty(start_toy: Callable[..., ToyServer]) -> Callable[..., Server]:
    """Start servers whose model loads for a second and fails on some photos; they are ready."""

    def run(*options: str, **settings: Any) -> Server:
        environ = {"FAULTY_LOAD_S": "1"}
        return start_toy(*options, environ=environ, **settings).wait_until_ready()

    return run


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """An ONNX file with its description: the path. Its server starts without torch: in a second."""
    from onnx_files import write

    description = "[input]\nsize = 64\nresize = 64\nmean = 0\nstd = 1\n"
    (tmp_path / "model.toml").write_text(description)
    return write(tmp_path / "net.onnx")


@pytest.fixture
def squeezenet(tmp_path: Path) -> Path:
    """Weights in a file: the path."""
    from torch import save
    from torchvision.models import squeezenet1_1

    path = tmp_path / "weights.pth"
    save(squeezenet1_1().state_dict(), path)
    return path


@pytest.fixture
def connect() -> Iterator[Callable[..., socket.socket]]:
    """Open connections to a server and send bytes; they are closed after the test."""
    with ExitStack() as stack:

        def run(server: Server, *sent: bytes) -> socket.socket:
            connection = stack.enter_context(socket.create_connection(server.address, 60))
            for part in sent:
                connection.sendall(part)
            return connection

        yield run


@pytest.fixture(scope="session")
def coffee() -> bytes:
    """A JPEG of an espresso."""
    return encode(Image.fromarray(data.coffee()), "JPEG")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A self-signed certificate for 127.0.0.1: paths of the certificate and of its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "1", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out",
         certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return str(certificate), str(key)


@pytest.fixture
def start_of_the_master(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a hook changes in its process does not outlive the test."""
    environ = {name: value for name, value in os.environ.items() if name != "GUNICORN_FD"}
    monkeypatch.setattr(os, "environ", environ)
    monkeypatch.setattr(hooks, "state", state := hooks.State())
    monkeypatch.setattr(settings, "_handed_on", settings.Settings())
    yield
    for fd in state.shared_weights:
        os.close(fd)
