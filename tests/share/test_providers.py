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
# pyngrok leaves its agent's output open, and its thread that reads it.
ends_carelessly = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture
def fakes(monkeypatch):
    use_modules(monkeypatch)


@pytest.fixture
def without(monkeypatch):
    """Have modules not be installed."""
    return lambda name: monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def agent(tmp_path):
    """An agent for pyngrok; its folder is the result."""
    with pyngrok_with(install("agent.py", tmp_path, "ngrok")):
        yield tmp_path


def test_auto_tries_them_in_the_order_of_the_readme():
    assert list(choose("auto")) == ["ngrok", "pyngrok", "cloudflared", "colab"]


@pytest.mark.parametrize("name", NAMES[1:])
def test_each_can_be_chosen_alone(name):
    assert list(choose(name)) == [name]


def test_a_name_that_is_none_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="'ngork'; there are auto, ngrok, pyngrok, cloudflared"):
        choose("ngork")


@pytest.mark.usefixtures("fakes")
def test_colabs_secret_comes_before_the_environment(monkeypatch):
    monkeypatch.setenv("NGROK_AUTHTOKEN", "of-the-environment")
    assert find_token() == "a-secret-of-colabs"


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize("name", ["SecretNotFoundError", "NotebookAccessError", "TimeoutException"])
def test_a_secret_that_is_not_to_be_had_leaves_the_environment(monkeypatch, name):
    from google.colab import userdata

    error = getattr(userdata, name)("NGROK_AUTHTOKEN")
    monkeypatch.setitem(userdata.secrets, "NGROK_AUTHTOKEN", error)
    monkeypatch.setenv("NGROK_AUTHTOKEN", " of-the-environment\n")
    assert find_token() == "of-the-environment"


@pytest.mark.parametrize("value", [None, "", " "])
def test_no_token_is_none(monkeypatch, value):
    monkeypatch.delenv("NGROK_AUTHTOKEN", raising=False)
    if value is not None:
        monkeypatch.setenv("NGROK_AUTHTOKEN", value)
    assert find_token() is None


@pytest.mark.usefixtures("fakes")
def test_the_sdk_leads_to_the_app_until_it_is_closed():
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
def test_the_accounts_session_ends_with_the_last_of_its_tunnels():
    import ngrok

    first, second = (open_ngrok(LOCAL, "token") for _ in range(2))
    first.close()
    assert ngrok.killed == []
    second.close()
    assert ngrok.killed == [True]


@pytest.mark.usefixtures("fakes")
def test_the_sdk_works_in_a_notebook_whose_thread_runs_an_event_loop():
    async def cell():
        return within(10, partial(open_ngrok, LOCAL, "token"))

    tunnel = asyncio.run(cell())
    assert tunnel.url.startswith("http://127.0.0.1:")
    tunnel.close()


@pytest.mark.usefixtures("fakes")
def test_a_refusal_of_the_sdks_is_advice_without_the_token():
    with pytest.raises(TunnelError, match="the token was reset or revoked") as raised:
        open_ngrok(LOCAL, "revoked")
    assert "authtoken: revoked" not in str(raised.value)


def test_the_real_sdk_says_in_a_sentence_that_nobody_is_there():
    with pytest.raises(TunnelError, match="could not be used .*failed to establish tcp connection"):
        within(30, partial(open_ngrok, LOCAL, "token", server_addr="127.0.0.1:9"))


@ends_carelessly
def test_pyngrok_starts_its_agent_and_ends_it_with_the_tunnel(agent):
    tunnel = open_pyngrok(LOCAL, "token")
    assert tunnel.url == "https://abc.ngrok-free.app"
    port = (agent / "port").read_text()
    (endpoint,) = requests.get(f"http://127.0.0.1:{port}", timeout=10).json()["endpoints"]
    assert endpoint["upstream"] == {"url": LOCAL}
    tunnel.close()
    assert not is_running(agent / "process")


@ends_carelessly
def test_an_agent_that_others_use_is_left_to_them(agent):
    pyngrok.connect("8000", name="theirs")
    open_pyngrok(LOCAL, "token").close()
    assert is_running(agent / "process")


@ends_carelessly
def test_an_agent_that_has_died_is_not_started_to_be_ended(agent):
    tunnel = open_pyngrok(LOCAL, "token")
    pyngrok.kill()
    (agent / "process").unlink()
    tunnel.close()
    assert not (agent / "process").exists()


@ends_carelessly
def test_a_refusal_of_the_agents_is_advice_and_no_log(agent, capfd, caplog):
    caplog.set_level(logging.WARNING)
    with pytest.raises(TunnelError, match="the token was reset or revoked.*ERR_NGROK_107"):
        open_pyngrok(LOCAL, "revoked")
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@ends_carelessly
def test_the_token_that_the_agent_was_told_for_good_is_enough(agent):
    (agent / "ngrok.yml").write_text("version: '3'\nagent:\n  authtoken: token\n")
    open_pyngrok(LOCAL, None).close()


def test_an_agent_that_cannot_be_downloaded_is_a_sentence(tmp_path, monkeypatch, capsys):
    """Nothing answers at the proxy named; where there is a network, it is not used."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    download = pytest.raises(TunnelError, match="could not be used .*download")
    with pyngrok_with(tmp_path / "ngrok"), download:
        open_pyngrok(LOCAL, "token")


@pytest.mark.usefixtures("fakes")
def test_a_program_that_a_cell_of_colab_starts_shows_nothing(monkeypatch):
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
        ("google", "this is no Colab notebook"),
    ],
)
def test_what_is_not_installed_is_a_sentence(without, name, reason):
    without(name)
    provider = {"google": "colab"}.get(name, name.replace("_", "-"))
    with pytest.raises(TunnelError, match=reason):
        choose(provider)[provider](LOCAL, "token")


@pytest.mark.parametrize("provider", [open_ngrok, open_pyngrok])
def test_without_a_token_nobody_is_asked(agent, provider):
    with pytest.raises(TunnelError, match="needs the token of a free account"):
        provider(LOCAL, None)
    assert not (agent / "process").exists()
