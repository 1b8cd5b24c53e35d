"""A share: how it serves, how it is closed, and that its tunnel ends with the process."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest
import requests

from conftest import store_of
from paths import ROOT
from pictures import picture
from predictor.share import Tunnel, run_with_ngrok
from tunnels import fail_to_open, install, is_running, wait_until_ended
from waiting import wait_until


def assert_not_served(share):
    with pytest.raises(requests.ConnectionError):
        requests.get(share.local_url, timeout=10)


def test_a_client_that_stops_sending_frees_its_slot(make_app, run):
    app = make_app(receive_timeout_s=0.2, max_in_flight=1)
    slots = store_of(app).process.slots
    share = run(app, fail_to_open, port=0)
    with socket.create_connection(("127.0.0.1", share.port)) as silent:
        silent.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        wait_until(lambda: slots.held == 1)
        wait_until(lambda: slots.held == 0)
    assert requests.post(f"{share.url}/predict", data=picture(), timeout=10).ok


def test_werkzeug_logs_no_request_of_our_own_app(app, plain, run, caplog):
    caplog.set_level("INFO", "werkzeug")
    for one, lines in ((app, 0), (plain, 1)):
        requests.get(f"{run(one, fail_to_open, port=0).url}/name", timeout=10)
        assert sum(record.name == "werkzeug" for record in caplog.records) == lines


def test_closing_twice_ends_tunnel_and_server(plain, provider, run):
    share = run(plain, provider, port=0)
    share.close()
    share.close()
    assert provider.open == []
    assert "PUBLIC_URL" not in plain.config
    assert_not_served(share)


def test_closing_one_of_two_shares_keeps_the_others_public_url(plain, provider, run):
    first = run(plain, provider, port=0)
    plain.name = "another"
    second = run(plain, provider, port=0)
    first.close()
    assert plain.config["PUBLIC_URL"] == second.url


def test_the_server_is_closed_even_if_closing_the_tunnel_fails(plain, run):
    def broken():
        raise OSError("The agent is gone.")

    share = run(plain, lambda address, token: Tunnel("https://x.example.org", broken), port=0)
    share.close()
    assert_not_served(share)


def test_without_background_app_run_returns_when_replaced(plain, provider):
    run_with_ngrok(plain, provider)
    thread = threading.Thread(target=plain.run, kwargs={"port": 0})
    thread.start()
    wait_until(lambda: "PUBLIC_URL" in plain.config)
    assert thread.is_alive()
    share = plain.run(port=0, background=True)
    thread.join(10)
    share.close()
    assert not thread.is_alive()


@pytest.fixture
def as_in_a_terminal():
    """Reset signals for child processes: a background job starts with SIGINT and SIGHUP ignored."""
    before = {
        n: signal.signal(n, signal.default_int_handler) for n in (signal.SIGINT, signal.SIGHUP)
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


SCRIPT = """
from flask import Flask
from predictor.share import run_with_ngrok
app = Flask("script")
run_with_ngrok(app, "cloudflared")
app.run(port=0)
print("The end.")
"""
BACKGROUND = """
from flask import Flask
from predictor.share import Tunnel, run_with_ngrok
app = Flask("script")
def open_tunnel(address, token):
    return Tunnel("https://x.example.org", lambda: print("closed"))
run_with_ngrok(app, open_tunnel, background=True)
app.run(port=0)
print("The end.")
"""


@pytest.mark.server
@pytest.mark.parametrize(
    ("command", "number"),
    [
        (["-c", SCRIPT], signal.SIGINT),
        (["app.py", "--share", "--port", "0"], signal.SIGINT),
        (["-c", SCRIPT], signal.SIGTERM),
        (["-c", SCRIPT], signal.SIGHUP),
        (["-c", SCRIPT], signal.SIGKILL),
        (["app.py", "--share", "cloudflared", "--port", "0"], signal.SIGTERM),
        (["app.py", "--share", "cloudflared", "--port", "0"], signal.SIGKILL),
    ],
)
@pytest.mark.usefixtures("as_in_a_terminal")
def test_the_tunnel_ends_with_the_app_process(tmp_path, command, number):
    install("cloudflared.py", tmp_path)
    env = {
        **os.environ,
        "PATH": str(tmp_path),
        "PREDICTOR_MODEL": "efficientnet_lite0",
        "PYTHONUNBUFFERED": "1",
    }
    env.pop("NGROK_AUTHTOKEN", None)
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "trycloudflare" in line:
            break
    assert is_running(tmp_path / "process")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 0)
    wait_until_ended(tmp_path / "process")
    assert "Traceback" not in err
    assert re.match(r" \* Running on http://127.0.0.1:\d+\n", lines[0])


def test_a_background_share_is_closed_when_the_program_ends():
    done = subprocess.run(
        [sys.executable, "-c", BACKGROUND], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.endswith("The end.\nclosed\n"), done.stderr
