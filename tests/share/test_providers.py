import asyncio
import logging
import sys
from functools import partial

import pytest
import requests
from flask import Flask
from pyngrok import ngrok as pyngrok

from predictor.server.background import BackgroundServer
from predictor.share import NAMES, TunnelError
from predictor.share.providers import (
    choose,
    find_token,
    open_colab,
    open_ngrok,
    open_pyngrok,
)
from predictor.share.tunnel import within
from tunnels import install, is_running, pyngrok_with, use_modules

LOCAL = "http://127.0.0.1:5000"
# pyngrok does not close its agent's output.
leaves_a_file_open = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture
def fakes(monkeypatch):
    use_modules(monkeypatch)


@pytest.fixture
def without(monkeypatch):
    """Make the import of a module fail."""
    return lambda name: monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def agent(tmp_path):
    """The folder of an agent for pyngrok."""
    with pyngrok_with(install("agent.py", tmp_path, "ngrok")):
        yield tmp_path


def test_auto_tries_the_providers_in_the_readmes_order():
    assert list(choose("auto")) == ["ngrok", "pyngrok", "cloudflared", "colab"]


@pytest.mark.parametrize("name", NAMES[1:])
def test_each_provider_can_be_chosen_by_name(name):
    assert list(choose(name)) == [name]


def test_an_unknown_provider_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match="'ngork'; it must be one of auto, ngrok, pyngrok"):
        choose("ngork")


@pytest.mark.usefixtures("fakes")
def test_colabs_secret_has_priority_over_the_environment(monkeypatch):
    monkeypatch.setenv("NGROK_AUTHTOKEN", "of-the-environment")
    assert find_token() == "a-secret-of-colabs"


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize("name", ["SecretNotFoundError", "NotebookAccessError", "TimeoutException"])
def test_without_colabs_secret_the_environment_is_used(monkeypatch, name):
    from google.colab import userdata

    error = getattr(userdata, name)("NGROK_AUTHTOKEN")
    monkeypatch.setitem(userdata.secrets, "NGROK_AUTHTOKEN", error)
    monkeypatch.setenv("NGROK_AUTHTOKEN", " of-the-environment\n")
    assert find_token() == "of-the-environment"


@pytest.mark.parametrize("value", [None, "", " "])
def test_an_empty_ngrok_token_counts_as_none(monkeypatch, value):
    monkeypatch.delenv("NGROK_AUTHTOKEN", raising=False)
    if value is not None:
        monkeypatch.setenv("NGROK_AUTHTOKEN", value)
    assert find_token() is None


@pytest.mark.usefixtures("fakes")
def test_the_sdks_tunnel_reaches_the_app_until_closed():
    app = Flask("greeter")
    app.add_url_rule("/", view_func=lambda: "hello")
    server = BackgroundServer(app, "127.0.0.1", 0)
    tunnel = open_ngrok(server.url, "token")
    assert tunnel.url != server.url
    assert requests.get(tunnel.url, timeout=10).text == "hello"
    tunnel.close()
    with pytest.raises(requests.ConnectionError):
        requests.get(tunnel.url, timeout=10)
    server.close()


@pytest.mark.usefixtures("fakes")
def test_closing_the_last_tunnel_ends_the_ngrok_session():
    import ngrok

    first, second = (open_ngrok(LOCAL, "token") for _ in range(2))
    first.close()
    assert ngrok.killed == []
    second.close()
    assert ngrok.killed == [True]


@pytest.mark.usefixtures("fakes")
def test_the_sdk_works_where_an_event_loop_is_running():
    async def cell():
        return within(10, partial(open_ngrok, LOCAL, "token"))

    tunnel = asyncio.run(cell())
    assert tunnel.url.startswith("http://127.0.0.1:")
    tunnel.close()


@pytest.mark.usefixtures("fakes")
def test_an_sdk_error_becomes_advice_without_the_token():
    with pytest.raises(TunnelError, match="the token was reset or revoked") as raised:
        open_ngrok(LOCAL, "revoked")
    assert "authtoken: revoked" not in str(raised.value)


def test_the_real_sdk_reports_a_failed_connection():
    with pytest.raises(TunnelError, match="it failed .*failed to establish tcp connection"):
        within(30, partial(open_ngrok, LOCAL, "token", server_addr="127.0.0.1:9"))


@leaves_a_file_open
def test_pyngroks_agent_runs_until_the_tunnel_is_closed(agent):
    tunnel = open_pyngrok(LOCAL, "token")
    assert tunnel.url == "https://abc.ngrok-free.app"
    port = (agent / "port").read_text()
    (endpoint,) = requests.get(f"http://127.0.0.1:{port}", timeout=10).json()["endpoints"]
    assert endpoint["upstream"] == {"url": LOCAL}
    tunnel.close()
    assert not is_running(agent / "process")


@leaves_a_file_open
def test_an_agent_with_other_tunnels_is_not_ended(agent):
    pyngrok.connect("8000", name="theirs")
    open_pyngrok(LOCAL, "token").close()
    assert is_running(agent / "process")


@leaves_a_file_open
def test_closing_does_not_restart_an_agent_that_has_ended(agent):
    tunnel = open_pyngrok(LOCAL, "token")
    pyngrok.kill()
    (agent / "process").unlink()
    tunnel.close()
    assert not (agent / "process").exists()


@leaves_a_file_open
def test_an_agent_error_becomes_advice_and_is_not_logged(agent, capfd, caplog):
    caplog.set_level(logging.WARNING)
    with pytest.raises(TunnelError, match="the token was reset or revoked.*ERR_NGROK_107"):
        open_pyngrok(LOCAL, "revoked")
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@leaves_a_file_open
def test_a_token_in_the_agents_configuration_is_enough(agent):
    (agent / "ngrok.yml").write_text("version: '3'\nagent:\n  authtoken: token\n")
    open_pyngrok(LOCAL, None).close()


def test_a_failed_download_of_the_agent_is_a_tunnel_error(tmp_path, monkeypatch, capsys):
    """The proxy does not exist, so nothing is downloaded even with a network."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    download = pytest.raises(TunnelError, match="it failed .*download")
    with pyngrok_with(tmp_path / "ngrok"), download:
        open_pyngrok(LOCAL, "token")


@pytest.mark.usefixtures("fakes")
def test_colabs_proxy_needs_the_notebooks_own_process(monkeypatch):
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    with pytest.raises(TunnelError, match="not the notebook's own process"):
        open_colab(LOCAL)


@pytest.mark.usefixtures("fakes")
def test_colabs_proxy_shows_the_port_and_is_not_public(capsys):
    tunnel = open_colab("http://127.0.0.1:5001")
    assert capsys.readouterr().out == "Colab shows port 5001.\n"
    assert not tunnel.public


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ngrok", "it is not installed .pip install ngrok"),
        ("pyngrok", "it is not installed .pip install pyngrok"),
        ("flask_ngrok", "flask_ngrok is not installed"),
        ("google", "this is not a Colab notebook"),
    ],
)
def test_a_missing_package_is_a_tunnel_error(without, name, reason):
    without(name)
    provider = {"google": "colab"}.get(name, name.replace("_", "-"))
    with pytest.raises(TunnelError, match=reason):
        choose(provider)[provider](LOCAL, "token")


@pytest.mark.parametrize("provider", [open_ngrok, open_pyngrok])
def test_without_a_token_ngrok_is_not_started(agent, provider):
    with pytest.raises(TunnelError, match="needs the token of a free ngrok account"):
        provider(LOCAL, None)
    assert not (agent / "process").exists()
