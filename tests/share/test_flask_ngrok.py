import os
import tempfile
from pathlib import Path

import pytest
import requests

from predictor.share import TunnelError, flask_ngrok
from predictor.share.flask_ngrok import open_flask_ngrok, put_agent
from tunnels import install, is_running, pyngrok_with

pytestmark = pytest.mark.slow  # each test starts an agent

LOCAL = "http://127.0.0.1:5001"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run flask-ngrok's agent")


@pytest.fixture
def agent(tmp_path, monkeypatch):
    """The folder of pyngrok's agent, which is also the folder for temporary files.

    flask-ngrok requests port 4040; this redirects it to the fake agent, which uses any free port.
    """
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("NGROK_AUTHTOKEN", "")
    real = requests.get

    def get(url, **options):
        if not (tmp_path / "port").exists():
            raise requests.ConnectionError("The agent does not listen yet.")
        return real(url.replace("localhost:4040", f"127.0.0.1:{(tmp_path / 'port').read_text()}"))

    monkeypatch.setattr(requests, "get", get)
    with pyngrok_with(install("agent.py", tmp_path, "ngrok-v3")):
        yield tmp_path


@as_root
def test_flask_ngrok_runs_pyngroks_agent_for_any_port(agent):
    tunnel = open_flask_ngrok(LOCAL, "token")
    assert tunnel.url == "https://abc.ngrok-free.app"
    assert is_running(agent / "process")
    tunnel.close()
    assert not is_running(agent / "process")


@as_root
def test_an_error_in_flask_ngroks_agent_log_becomes_advice(agent):
    with pytest.raises(TunnelError, match="the token was reset or revoked.*ERR_NGROK_107"):
        open_flask_ngrok(LOCAL, "revoked")


@as_root
def test_another_agents_tunnel_is_not_mistaken_for_ours(agent, monkeypatch):
    monkeypatch.setattr(flask_ngrok, "OPEN_TIMEOUT_S", 1)
    monkeypatch.setattr(flask_ngrok, "put_agent", lambda f, p, a: put_agent(f, p, LOCAL + "0"))
    with pytest.raises(TunnelError, match="its agent opened no tunnel"):
        open_flask_ngrok(LOCAL, "token")
    assert not is_running(agent / "process")


def test_flask_ngrok_requires_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(TunnelError, match="only root can run its agent; use ngrok or pyngrok"):
        open_flask_ngrok(LOCAL, "token")


def test_an_agent_that_flask_ngrok_downloaded_is_replaced(tmp_path):
    folder = tmp_path / "ngrok"
    folder.mkdir()
    (folder / "ngrok").write_text("version 2")
    put_agent(folder, "/home/somebody/my agents/ngrok", LOCAL)
    script = (folder / "ngrok").read_text()
    assert f"exec '/home/somebody/my agents/ngrok' http {LOCAL} " in script


@pytest.mark.parametrize("kind", ["another user's", "a link"])
def test_an_agent_folder_of_another_user_is_refused(tmp_path, monkeypatch, kind):
    folder = tmp_path / "ngrok"
    if kind == "a link":
        folder.symlink_to(tmp_path)
    else:
        folder.mkdir()
        monkeypatch.setattr(os, "geteuid", lambda: Path(folder).stat().st_uid + 1)
    with pytest.raises(TunnelError, match="is a link or belongs to another user; remove it"):
        put_agent(folder, "/usr/bin/ngrok", LOCAL)
    assert not (tmp_path / "pid").exists()
