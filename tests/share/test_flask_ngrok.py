import os
import tempfile
from pathlib import Path

import pytest
import requests

from predictor.share import TunnelError, flask_ngrok
from predictor.share.flask_ngrok import open_flask_ngrok, put_agent
from tunnels import install, is_running, pyngrok_with

LOCAL = "http://127.0.0.1:5001"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="flask-ngrok's agent runs for root alone")


@pytest.fixture
def agent(tmp_path, monkeypatch):
    """Pyngrok's agent, and a folder for temporary files; the agent's folder is the result.

    Flask-ngrok asks port 4040; the fake takes any, and its answer comes from there.
    """
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("NGROK_AUTHTOKEN", "")
    real = requests.get

    def get(url, **options):
        if not (tmp_path / "port").exists():
            raise requests.ConnectionError("It is not there yet.")
        return real(url.replace("localhost:4040", f"127.0.0.1:{(tmp_path / 'port').read_text()}"))

    monkeypatch.setattr(requests, "get", get)
    with pyngrok_with(install("agent.py", tmp_path, "ngrok-v3")):
        yield tmp_path


@as_root
def test_flask_ngrok_runs_pyngroks_agent_for_whichever_port_and_it_ends_with_the_tunnel(agent):
    tunnel = open_flask_ngrok(LOCAL, "token")
    assert tunnel.url == "https://abc.ngrok-free.app"
    assert is_running(agent / "process")
    tunnel.close()
    assert not is_running(agent / "process")


@as_root
def test_a_refusal_of_its_agents_is_advice(agent):
    with pytest.raises(TunnelError, match="the token was reset or revoked.*ERR_NGROK_107"):
        open_flask_ngrok(LOCAL, "revoked")


@as_root
def test_the_tunnel_of_another_agent_at_that_port_is_not_taken_for_ours(agent, monkeypatch):
    monkeypatch.setattr(flask_ngrok, "PATIENCE_S", 1)
    monkeypatch.setattr(flask_ngrok, "put_agent", lambda f, p, a: put_agent(f, p, LOCAL + "0"))
    with pytest.raises(TunnelError, match="its agent opened no tunnel"):
        open_flask_ngrok(LOCAL, "token")
    assert not is_running(agent / "process")


def test_whoever_is_not_root_is_told_why_it_cannot_work(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(TunnelError, match="executable for root alone; take ngrok or pyngrok"):
        open_flask_ngrok(LOCAL, "token")


def test_what_it_has_downloaded_before_is_replaced(tmp_path):
    folder = tmp_path / "ngrok"
    folder.mkdir()
    (folder / "ngrok").write_text("version 2")
    put_agent(folder, "/home/somebody/my agents/ngrok", LOCAL)
    script = (folder / "ngrok").read_text()
    assert f"exec '/home/somebody/my agents/ngrok' http {LOCAL} " in script


@pytest.mark.parametrize("trap", ["another's", "a link"])
def test_a_folder_of_somebody_elses_is_not_used(tmp_path, monkeypatch, trap):
    folder = tmp_path / "ngrok"
    if trap == "a link":
        folder.symlink_to(tmp_path)
    else:
        folder.mkdir()
        monkeypatch.setattr(os, "geteuid", lambda: Path(folder).stat().st_uid + 1)
    with pytest.raises(TunnelError, match="belongs to somebody else; remove it"):
        put_agent(folder, "/usr/bin/ngrok", LOCAL)
    assert not (tmp_path / "pid").exists()
