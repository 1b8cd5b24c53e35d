"""The unit and the socket for systemd: valid, restricted, and served by a real gunicorn.

No systemd runs here. The tests hold the socket in its place, and read what it would be told.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from paths import ROOT
from pictures import picture
from waiting import wait_until

FOLDER = ROOT / "deploy" / "systemd"
UNIT = (FOLDER / "predictor.service").read_text()
SOCKET = (FOLDER / "predictor.socket").read_text()
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is not installed (apt-get install systemd)",
)


def analyze(*arguments):
    command = ["systemd-analyze", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def value(name, text=UNIT):
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)[-1]


# The files


@pytest.fixture
def units(tmp_path):
    """A copy of the files, whose program is installed."""
    for text, name in ((UNIT, "predictor.service"), (SOCKET, "predictor.socket")):
        (tmp_path / name).write_text(text.replace("/opt/predictor/bin/predictor", "/bin/true"))
    return [tmp_path / "predictor.service", tmp_path / "predictor.socket"]


@needs_systemd
def test_units_are_valid(units):
    assert analyze("verify", *units) == (0, "")


@needs_systemd
def test_a_wrong_unit_is_reported(units):
    units[0].write_text(units[0].read_text().replace("KillMode=", "KillMod="))
    assert "Unknown key 'KillMod'" in analyze("verify", *units)[1]


@needs_systemd
def test_exposure_is_at_most_2_5(units):
    status, text = analyze("security", "--offline=yes", "--threshold=25", units[0])
    assert status == 0, text
    assert re.search(r"Overall exposure level for predictor.service: [012]\.\d", text)


def test_systemd_waits_longer_than_the_server_needs_to_stop():
    program = "import runpy; print(runpy.run_path('gunicorn.conf.py')['graceful_timeout'])"
    command = [sys.executable, "-c", program]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60).stdout
    assert int(value("TimeoutStopSec")) > int(printed)


def test_socket_has_the_address_that_the_documents_name():
    assert value("ListenStream", SOCKET) == "127.0.0.1:5000"


# The server


class Activated:
    """A gunicorn with the toy model, started with a socket as systemd starts a service.

    Args:
        listener: the socket. It stays open when the server ends.
        notify: path of the socket for messages to systemd.
    """

    # The variables name the process that replaces the shell; the socket is descriptor 3.
    START = 'export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@" 3<&0 </dev/null'

    def __init__(self, listener, notify=""):
        self.url = "http://{}:{}".format(*listener.getsockname())
        self.log_file = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115
        gunicorn = [sys.executable, "-m", "gunicorn", "--pythonpath", "tests", "faulty:app"]
        further = {"FAULTY_LOAD_S": "0", "PREDICTOR_LOG_FORMAT": "text"}
        further |= {"NOTIFY_SOCKET": notify} if notify else {}
        self.process = subprocess.Popen(
            ["sh", "-c", self.START, "sh", *gunicorn],
            cwd=ROOT, env={**os.environ, **further}, stdin=listener,
            stdout=self.log_file, stderr=self.log_file,
        )  # fmt: skip

    @property
    def log(self):
        return Path(self.log_file.name).read_text()

    def wait_until_log_has(self, text, times=1):
        wait_until(lambda: self.log.count(text) >= times or self.process.poll() is not None, 180)
        assert self.process.poll() is None, self.log

    def predict(self):
        return requests.post(f"{self.url}/predict", data=picture("red"), timeout=60)

    def close(self):
        """Send the signal of the unit's stop, and return the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=60)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0), backlog=int(value("Backlog", SOCKET))) as listener:
        yield listener


@pytest.fixture
def start(listener):
    """Start a server with the socket; at the end, servers that still run are stopped."""
    started = []

    def start(**options):
        started.append(Activated(listener, **options))
        return started[-1]

    yield start
    for server in started:
        server.close()
        server.log_file.close()


@pytest.mark.server
def test_server_answers_at_the_socket_of_systemd(start):
    server = start()
    server.wait_until_log_has("Ready at")
    assert server.predict().json()["class_name"] == "red_thing"
    assert f"Listening at: {server.url}" in server.log
    assert server.close() == 0, server.log


@pytest.mark.server
def test_reload_keeps_the_socket(start):
    assert value("ExecReload") == "/bin/kill -HUP $MAINPID"
    server = start()
    server.wait_until_log_has("Ready at")
    server.process.send_signal(signal.SIGHUP)
    server.wait_until_log_has("Ready at", times=2)
    assert server.predict().json()["class_name"] == "red_thing"
    assert server.close() == 0, server.log


@pytest.mark.server
def test_restart_of_the_service_refuses_no_client(start):
    """A client that connects between the two servers waits in the socket's queue."""
    first = start()
    first.wait_until_log_has("Ready at")
    assert first.close() == 0, first.log
    with ThreadPoolExecutor(1) as clients:
        waiting = clients.submit(requests.get, f"{first.url}/healthz", timeout=60)
        second = start()
        assert waiting.result().status_code == 200
        assert second.close() == 0, second.log


@pytest.mark.server
def test_systemd_learns_that_the_server_listens(start, tmp_path):
    assert value("Type") == "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        start(notify=str(tmp_path / "notify"))
        assert systemd.recv(4096).startswith(b"READY=1")
