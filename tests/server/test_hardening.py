"""A real gunicorn under attack: tokens, TLS, an unprivileged user, a read-only file system."""

import contextlib
import io
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys

import psutil
import pytest
import requests
from PIL import Image

from paths import ROOT
from pictures import encode
from predictor.processes import is_running
from running_server import ToyServer
from waiting import wait_until

TOKEN, OTHER = "correct-horse-battery", "staple.0123456789=="
NOBODY = 65534
SETPRIV = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
# All mounts, except those that are writable in a container with a read-only file system.
READ_ONLY = """
while read -r _ mount _; do
  case $mount in /proc*|/sys*|/dev|/dev/*) ;; *) mount -o remount,bind,ro "$mount";; esac
done < /proc/self/mounts
exec "$@"
"""


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def guarded():
    running = ToyServer(tokens=f"{TOKEN},{OTHER}", max_upload_bytes=1_000_000).wait_until_ready()
    yield running
    running.close()


def exchange(server, request):
    """Send some bytes; returns the head of the response."""
    with socket.create_connection(server.address, timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer and (part := connection.recv(4096)):
            answer += part
    return answer.decode("latin-1")


@pytest.mark.parametrize("token", [TOKEN, OTHER])
def test_each_of_the_tokens_is_accepted(guarded, coffee, token):
    response = requests.post(f"{guarded.url}/predict", data=coffee, headers=bearer(token))
    assert response.json()["class_name"] == "red_thing"


def test_a_request_without_a_token_is_401_before_its_body(guarded):
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n"
    answer = exchange(guarded, head)
    assert answer.startswith("HTTP/1.1 401 ")
    assert 'WWW-Authenticate: Bearer realm="' in answer


def test_no_token_is_logged(guarded):
    wrong = "not-a-token-of-the-server"
    for token in (TOKEN, wrong):
        requests.get(f"{guarded.url}/", headers=bearer(token))
        requests.get(f"{guarded.url}/", auth=("me", token))
    assert requests.get(f"{guarded.url}/", auth=("me", TOKEN)).ok
    assert not [token for token in (TOKEN, OTHER, wrong) if token in guarded.log]


@pytest.mark.parametrize("path", ["/healthz", "/", "/nothing"])
def test_no_response_names_a_version(guarded, path):
    response = guarded.get(path)
    assert response.headers["Server"] == "gunicorn"
    assert "X-Powered-By" not in response.headers
    text = str(response.headers) + response.text
    assert not re.search(r"(gunicorn|werkzeug|flask|python|torch)/?[ ]?\d", text, re.IGNORECASE)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(b"Content-Length: 5\r\nTransfer-Encoding: chunked", id="two lengths"),
        pytest.param(b"Content-Length: 5\r\nContent-Length: 6", id="another length"),
        pytest.param(b"Content-Length: +5", id="sign"),
        pytest.param(b"Transfer-Encoding: xchunked", id="unknown encoding"),
        pytest.param(b"Transfer-Encoding : chunked", id="blank before the colon"),
        pytest.param(b"X: y\r\n Transfer-Encoding: chunked", id="folded"),
        pytest.param(b"X: a\x00b", id="null byte"),
    ],
)
def test_an_ambiguous_request_is_refused(guarded, lines):
    request = b"POST /predict HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n\r\n0\r\n\r\n"
    assert re.match(r"HTTP/1\.1 (400|501) ", exchange(guarded, request))


@pytest.mark.parametrize("header", [b"PATH_INFO: /healthz", b"SCRIPT_NAME: /predict"])
def test_no_header_evades_the_token(guarded, header):
    request = b"GET /predict/healthz HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n\r\n"
    assert exchange(guarded, request).startswith("HTTP/1.1 401 ")


def test_a_replaced_token_is_invalid_in_every_process_without_a_reload(start_toy, tmp_path):
    (tmp_path / "tokens").write_text(TOKEN)
    server = start_toy("--workers", "2", tokens_file=tmp_path / "tokens")
    wait_until(lambda: server.loaded == 2)
    (tmp_path / "tokens").write_text(OTHER)
    first, second = server.workers
    for stopped in (first, second):  # so that the other one answers
        os.kill(stopped, signal.SIGSTOP)
        wait_until(lambda: status(server, TOKEN) == 401)
        assert status(server, OTHER) == 200
        os.kill(stopped, signal.SIGCONT)
    assert set(server.workers) == {first, second}


def status(server, token):
    return requests.get(f"{server.url}/", headers=bearer(token), timeout=60).status_code


def test_a_replaced_token_is_invalid_after_a_reload(start_toy, tmp_path):
    (tmp_path / "tokens").write_text(TOKEN)
    server = start_toy(tokens_file=tmp_path / "tokens").wait_until_ready()
    first = server.worker
    (tmp_path / "tokens").write_text(OTHER)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.loaded == 2 and f"pid: {first})" in server.log)
    statuses = [
        requests.get(f"{server.url}/", headers=bearer(token)).status_code
        for token in (TOKEN, OTHER)
    ]
    assert statuses == [401, 200]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"tokens": "secret"}, "PREDICTOR_TOKENS: token 1 has fewer than 16 characters"),
        ({"tokens_file": "/nowhere"}, "PREDICTOR_TOKENS_FILE='/nowhere': the file cannot be read"),
        ({"rate_limit": "often"}, "PREDICTOR_RATE_LIMIT='often': a rate is written like"),
        ({"cors_origins": "example.org"}, "'example.org' is not an origin"),
        ({"trusted_proxies": "all"}, "PREDICTOR_TRUSTED_PROXIES='all' is not a whole number"),
    ],
)
def test_an_invalid_security_setting_stops_the_start(start, settings, sentence):
    server = start(**settings)
    assert server.process.wait(timeout=60) != 0
    assert sentence in server.log
    assert "Traceback" not in server.log
    assert "'secret'" not in server.log


# TLS


def test_gunicorn_serves_tls(start_toy, certificate, coffee):
    server = start_toy("--certfile", certificate[0], "--keyfile", certificate[1])
    assert server.url.startswith("https://")
    trust = {"verify": certificate[0], "timeout": 60}
    wait_until(lambda: requests.get(f"{server.url}/readyz", **trust).ok)
    answer = requests.post(f"{server.url}/predict", data=coffee, **trust).json()
    assert answer["class_name"] == "red_thing"
    assert f"Ready at {server.url}" in server.log
    with pytest.raises(requests.ConnectionError):
        requests.get(server.url.replace("https:", "http:"))


def test_tls_handshakes_that_never_end_do_not_block_the_server(start_toy, certificate):
    """Thirty clients send the first byte only; ten connections may be open."""
    options = ("--certfile", certificate[0], "--keyfile", certificate[1])
    server = start_toy(*options, "--worker-connections", "10")
    with contextlib.ExitStack() as silent:
        for _ in range(30):
            connection = silent.enter_context(socket.create_connection(server.address))
            connection.sendall(b"\x16")
        answer = requests.get(f"{server.url}/healthz", verify=certificate[0], timeout=60)
        assert answer.json() == {"status": "alive"}
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):  # the youngest has not even timed out
            connection.recv(1)
    assert "Traceback" not in server.log


def test_the_start_and_a_reload_refuse_a_key_of_another_certificate(
    start_toy, certificate, tmp_path
):
    """Each worker would end with a traceback, and be started again."""
    other = tmp_path / "key.pem"
    command = ["openssl", "genpkey", "-algorithm", "RSA", "-out"]
    subprocess.run([*command, other], check=True, capture_output=True)
    key = tmp_path / "used.pem"
    shutil.copy(certificate[1], key)
    server = start_toy("--certfile", certificate[0], "--keyfile", key)
    wait_until(lambda: requests.get(f"{server.url}/readyz", verify=certificate[0], timeout=60).ok)
    other.replace(key)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "Not reloaded. TLS cannot be used: " in server.log)
    assert requests.get(f"{server.url}/readyz", verify=certificate[0], timeout=60).ok
    for options in (("--certfile", certificate[0], "--keyfile", key), ("--keyfile", key)):
        refused = start_toy(*options)
        assert refused.process.wait(timeout=60) != 0
        assert "The server cannot start. TLS cannot be used: " in refused.log
        assert "Traceback" not in refused.log


def test_silent_tls_connections_take_little_memory(start_toy, certificate):
    """By default, asyncio takes 256 kB for each."""
    server = start_toy("--certfile", certificate[0], "--keyfile", certificate[1])
    trust = ssl.create_default_context(cafile=certificate[0])
    wait_until(lambda: requests.get(f"{server.url}/readyz", verify=certificate[0], timeout=60).ok)
    before = psutil.Process(server.worker).memory_info().rss
    with contextlib.ExitStack() as silent:
        for _ in range(100):
            raw = silent.enter_context(socket.create_connection(server.address, timeout=60))
            silent.enter_context(trust.wrap_socket(raw, server_hostname="127.0.0.1"))
        assert psutil.Process(server.worker).memory_info().rss - before < 100 * 128 * 1024


# An unprivileged user, a read-only file system


def can(*command):
    """Whether a command succeeds here; many containers forbid these."""
    try:
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    except OSError:
        return False


@pytest.fixture
def _homeless(monkeypatch):
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.delenv("TORCH_HOME", raising=False)


@pytest.mark.usefixtures("_homeless")
def test_the_server_runs_as_an_unprivileged_user_without_a_home(start, coffee):
    under = () if os.getuid() else SETPRIV
    if not can(*under, sys.executable, "-c", "import flask"):
        pytest.skip("another user cannot read this Python")
    server = start(under=under).wait_until_ready()
    assert psutil.Process(server.worker).uids().effective != 0
    assert server.predict(coffee).json()["class_name"] == "espresso"
    assert server.stop() == 0


@pytest.mark.usefixtures("_homeless")
def test_the_server_runs_on_a_read_only_file_system(start, coffee):
    under = ("unshare", "--mount", "sh", "-c", READ_ONLY, "sh")
    if not can(*under, "sh", "-c", '! touch "$0"', str(ROOT / "README.md")):
        pytest.skip("no file system can be mounted read-only here")
    if can(*under, *SETPRIV, sys.executable, "-c", "import flask"):
        under += SETPRIV
    server = start(under=under).wait_until_ready()
    tiff = encode(Image.open(io.BytesIO(coffee)), "TIFF")  # decoded in a process of its own
    for photo in (coffee, tiff):
        assert server.predict(photo).json()["class_name"] == "espresso"
    (decoders,) = psutil.Process(server.worker).children()
    assert server.stop() == 0
    wait_until(lambda: not is_running(decoders.pid))
