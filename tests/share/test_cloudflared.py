import os
import signal
import subprocess
import sys

import pytest

from predictor.share import TunnelError, cloudflared
from predictor.share.cloudflared import open_cloudflared
from running_server import ROOT
from tunnels import install, is_running
from waiting import wait_until

LOCAL = "http://127.0.0.1:5000"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Holds the one cloudflared there is."""
    install("cloudflared.py", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_it_gives_the_address_and_ends_with_the_tunnel(folder):
    tunnel = open_cloudflared(LOCAL)
    assert tunnel.url == "https://red-green-blue.trycloudflare.com"
    assert tunnel.public
    assert f"--url {LOCAL}" in (folder / "arguments").read_text()
    assert is_running(folder / "process")
    tunnel.close()
    wait_until(lambda: not is_running(folder / "process"))


def test_an_interrupted_cell_is_not_its_business(folder):
    """Jupyter sends SIGINT to all of the kernel's group."""
    tunnel = open_cloudflared(LOCAL)
    assert os.getpgid(int((folder / "process").read_text())) != os.getpgid(0)
    tunnel.close()


def test_one_that_is_not_there_is_not_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TunnelError, match="not on the PATH"):
        open_cloudflared(LOCAL)


def test_what_it_says_at_its_end_is_passed_on(folder):
    """With an address in it that is none of a tunnel."""
    (folder / "fate").write_text("refused")
    with pytest.raises(TunnelError, match="opened no tunnel .* no such host"):
        open_cloudflared(LOCAL)


@pytest.mark.parametrize("fate", ["silent", "unregistered"])
def test_one_that_opens_nothing_is_not_waited_for_for_ever(folder, monkeypatch, fate):
    monkeypatch.setattr(cloudflared, "PATIENCE_S", 1)
    (folder / "fate").write_text(fate)
    with pytest.raises(TunnelError, match="opened no tunnel in time"):
        open_cloudflared(LOCAL)
    wait_until(lambda: not is_running(folder / "process"))


def test_its_log_does_not_fill_the_pipe_and_stop_it(folder):
    (folder / "fate").write_text("talkative")
    tunnel = open_cloudflared(LOCAL)
    wait_until((folder / "done").exists)
    tunnel.close()


def test_what_a_wrapper_has_started_is_ended_too(folder, monkeypatch):
    monkeypatch.setattr(cloudflared, "GRACE_S", 0.1)
    (folder / "fate").write_text("obstinate")
    (folder / "cloudflared").rename(folder / "real")
    wrapper = folder / "cloudflared"
    wrapper.write_text(f'#!/bin/sh\n{folder}/real "$@"\n')
    wrapper.chmod(0o755)
    tunnel = open_cloudflared(LOCAL)
    assert is_running(folder / "process")
    tunnel.close()
    wait_until(lambda: not is_running(folder / "process"))


@pytest.mark.slow
def test_even_an_obstinate_one_does_not_outlive_an_app_that_is_killed(folder):
    (folder / "fate").write_text("obstinate")
    script = (
        "from predictor.share.cloudflared import open_cloudflared\n"
        f"open_cloudflared({LOCAL!r}); print('open', flush=True); input()"
    )
    app = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert app.stdout.readline() == "open\n"
    assert is_running(folder / "process")
    app.kill()
    app.communicate(timeout=10)
    wait_until(lambda: not is_running(folder / "process"))


def test_one_that_ends_later_is_told_of(folder, capsys):
    tunnel = open_cloudflared(LOCAL)
    os.kill(int((folder / "process").read_text()), signal.SIGKILL)
    said = []
    wait_until(lambda: said.append(capsys.readouterr().out) or "run this again" in "".join(said))
    tunnel.close()


def test_one_that_does_not_end_by_itself_is_ended(folder, monkeypatch):
    monkeypatch.setattr(cloudflared, "GRACE_S", 0.1)
    (folder / "fate").write_text("obstinate")
    tunnel = open_cloudflared(LOCAL)
    tunnel.close()
    wait_until(lambda: not is_running(folder / "process"))
