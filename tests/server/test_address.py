import errno
import os
import socket
import subprocess
import sys

import pytest

from paths import ROOT
from predictor.server.address import bind_error, check, host_from_env
from waiting import wait_until

CONDA = "x86_64-conda-linux-gnu"
ELSEWHERE = "192.0.2.1"  # for documentation; no machine has it


@pytest.mark.parametrize(
    ("host", "address"),
    [
        (None, "127.0.0.1"),
        ("", "127.0.0.1"),
        (" \r", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ('"0.0.0.0"\r', "0.0.0.0"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("localhost", "localhost"),
        (ELSEWHERE, ELSEWHERE),  # the start says that this machine does not have it
    ],
)
def test_host_is_the_address_to_listen_on(monkeypatch, caplog, host, address):
    monkeypatch.delenv("HOST", raising=False)
    if host is not None:
        monkeypatch.setenv("HOST", host)
    assert host_from_env() == address
    assert caplog.text == ""


@pytest.mark.parametrize("host", [CONDA, "http://0.0.0.0", "0.0.0.0:8080", "*", "a b", "x" * 300])
def test_host_that_is_no_address_is_ignored_with_a_warning(monkeypatch, caplog, host):
    monkeypatch.setenv("HOST", host)
    assert host_from_env() == "127.0.0.1"
    assert f"HOST={host!r} is not an address of this machine" in caplog.text
    assert "The server listens on 127.0.0.1" in caplog.text


def test_name_of_another_machine_is_ignored_with_a_warning(monkeypatch, caplog):
    """As where a provider's name server finds every name."""
    monkeypatch.setenv("HOST", CONDA)
    monkeypatch.setattr(
        "predictor.server.address.bind_error",
        lambda host, port: bind_error(ELSEWHERE if host == CONDA else host, port),
    )
    assert host_from_env() == "127.0.0.1"
    assert f"HOST='{CONDA}'" in caplog.text


def test_free_address_passes_the_check():
    check("127.0.0.1", 0, "--bind")
    check("unix:///tmp/socket", 0, "--host")


@pytest.mark.parametrize("host", [ELSEWHERE, CONDA])
def test_address_of_another_machine_is_refused_by_name(host):
    with pytest.raises(SystemExit, match=rf"Cannot listen on {host}:0: .*Set HOST or --bind"):
        check(host, 0, "--bind")


def test_taken_port_is_refused_with_advice():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"Port {port} on 127.0.0.1 is taken.*PORT=5001"):
            check("127.0.0.1", port, "--bind")


def test_ipv6_on_a_machine_without_it_is_refused(monkeypatch):
    def missing(family):
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr("socket.socket", missing)
    with pytest.raises(SystemExit, match="Cannot listen on :::5000: Address family not supported"):
        check("::", 5000, "--bind")


@pytest.mark.parametrize("name", ["\udcff", "ü..x"])
def test_name_that_cannot_be_encoded_is_no_address(monkeypatch, name, caplog):
    monkeypatch.setenv("HOST", name)
    assert host_from_env() == "127.0.0.1"
    assert "Invalid name" in caplog.text


def test_advice_for_a_taken_port_is_another_port(monkeypatch):
    taken = OSError(errno.EADDRINUSE, "Address already in use")
    monkeypatch.setattr("predictor.server.address.bind_error", lambda host, port: taken)
    with pytest.raises(SystemExit, match="Port 5001 .*PORT=5002"):
        check("127.0.0.1", 5001, "--bind")


# Real servers


def test_gunicorn_serves_on_loopback_where_conda_has_set_host(start_toy):
    server = start_toy(environ={"HOST": CONDA}).wait_until_ready()
    assert server.address[0] == "127.0.0.1"
    assert f"HOST='{CONDA}' is not an address of this machine" in server.log


def test_gunicorn_starts_beside_a_kubernetes_service_called_predictor(start_toy):
    environ = {"PREDICTOR_PORT": "tcp://10.0.0.1:80", "PREDICTOR_SERVICE_HOST": "10.0.0.1"}
    assert start_toy(environ=environ).wait_until_ready()


def test_gunicorn_says_why_it_listens_on_loopback_only(start_toy):
    server = start_toy()  # with PORT
    wait_until(lambda: "because PORT is set and HOST is not" in server.log)
    told = start_toy(environ={"HOST": "127.0.0.1"}).wait_until_ready()
    bound = start_toy("--bind", "localhost:0").wait_until_ready()
    assert "because PORT" not in told.log + bound.log


@pytest.mark.parametrize("options", [[], ["--bind", f"{ELSEWHERE}:0"]], ids=["HOST", "bind"])
def test_gunicorn_refuses_an_address_of_another_machine_at_once(start, options):
    server = start(*options, environ={} if options else {"HOST": ELSEWHERE})
    assert server.process.wait(timeout=60) != 0
    assert f"Cannot listen on {ELSEWHERE}:0" in server.log
    assert "Retrying" not in server.log


def run(*command, **environ):
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=os.environ | environ, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["app.py", "--host", CONDA],
        ["-m", "flask", "--app", "app", "run", "--host", ELSEWHERE],
    ],
)
def test_development_server_refuses_a_wrong_host_in_a_sentence(command):
    done = run(*command)
    assert done.returncode == 1
    assert f"Cannot listen on {command[-1]}:5000: " in done.stderr
    assert "Set HOST or --host to an address of this machine" in done.stderr
    assert "Traceback" not in done.stderr
