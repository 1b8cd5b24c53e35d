import os
import signal
import subprocess
import sys

import pytest

from paths import ROOT
from predictor.share import TunnelError, cloudflared
from predictor.share.cloudflared import open_cloudflared
from tunnels import install, is_running, wait_until_ended
from waiting import wait_until

LOCAL = "http://127.0.0.1:5000"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The only folder on the PATH, with the fake cloudflared in it."""
    install("cloudflared.py", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_cloudflared_runs_until_the_tunnel_is_closed(folder):
    tunnel = open_cloudflared(LOCAL)
    assert tunnel.url == "https://red-green-blue.trycloudflare.com"
    assert tunnel.public
    assert f"--url {LOCAL}" in (folder / "arguments").read_text()
    assert is_running(folder / "process")
    tunnel.close()
    wait_until_ended(folder / "process")


def test_interrupting_a_cell_does_not_signal_cloudflared(folder):
    """Jupyter sends SIGINT to the kernel's whole process group."""
    tunnel = open_cloudflared(LOCAL)
    assert os.getpgid(int((folder / "process").read_text())) != os.getpgid(0)
    tunnel.close()


def test_a_missing_cloudflared_is_not_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TunnelError, match="not on the PATH"):
        open_cloudflared(LOCAL)


def test_a_failure_quotes_cloudflareds_last_line(folder):
    """The line contains a URL of trycloudflare.com that is not a tunnel's."""
    (folder / "mode").write_text("refused")
    with pytest.raises(TunnelError, match="without opening a tunnel .* no such host"):
        open_cloudflared(LOCAL)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["silent", "unregistered"])
def test_waiting_for_cloudflared_has_a_timeout(folder, monkeypatch, mode):
    monkeypatch.setattr(cloudflared, "OPEN_TIMEOUT_S", 1)
    (folder / "mode").write_text(mode)
    with pytest.raises(TunnelError, match="opened no tunnel within 1 s"):
        open_cloudflared(LOCAL)
    wait_until_ended(folder / "process")


def test_a_long_log_does_not_block_cloudflared(folder):
    (folder / "mode").write_text("logs a lot")
    tunnel = open_cloudflared(LOCAL)
    wait_until((folder / "done").exists)
    tunnel.close()


def test_closing_also_ends_the_children_of_a_wrapper_script(folder, monkeypatch):
    monkeypatch.setattr(cloudflared, "GRACE_S", 0.1)
    (folder / "mode").write_text("ignores SIGTERM")
    (folder / "cloudflared").rename(folder / "real")
    wrapper = folder / "cloudflared"
    wrapper.write_text(f'#!/bin/sh\n{folder}/real "$@"\n')
    wrapper.chmod(0o755)
    tunnel = open_cloudflared(LOCAL)
    assert is_running(folder / "process")
    tunnel.close()
    wait_until_ended(folder / "process")


@pytest.mark.slow
def test_cloudflared_ends_if_the_app_is_killed(folder):
    (folder / "mode").write_text("ignores SIGTERM")
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
    wait_until_ended(folder / "process")


def test_the_user_is_told_if_cloudflared_ends_early(folder, printed):
    tunnel = open_cloudflared(LOCAL)
    os.kill(int((folder / "process").read_text()), signal.SIGKILL)
    wait_until(lambda: "cloudflared has ended" in printed())
    tunnel.close()


def test_a_cloudflared_that_ignores_sigterm_is_killed(folder, monkeypatch):
    monkeypatch.setattr(cloudflared, "GRACE_S", 0.1)
    (folder / "mode").write_text("ignores SIGTERM")
    tunnel = open_cloudflared(LOCAL)
    tunnel.close()
    wait_until_ended(folder / "process")
