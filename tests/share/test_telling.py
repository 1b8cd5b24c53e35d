"""What the two lines say, whom they warn, who may show the page, and that all ends with the app."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest
import requests

from app import create_app
from conftest import toy_engine
from paths import ROOT
from pictures import picture
from predictor.engine.classifier import Classifier
from predictor.settings import Settings
from predictor.share import Tunnel, TunnelError, launcher, run_with_ngrok
from tunnels import install, is_running, none, use_modules
from waiting import wait_until


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (TunnelError("there is none today"), "there is none today"),
        (RuntimeError("an accident"), "RuntimeError: an accident"),
    ],
)
def test_without_a_tunnel_the_app_is_served_and_one_sentence_says_why(
    plain, run, capsys, failure, said
):
    def fail(address, token):
        raise failure

    share = run(plain, fail, port=0)
    assert requests.get(share.url, timeout=10).text == "hello"
    out, err = capsys.readouterr()
    text = " ".join(out.split())
    assert text.endswith(
        f"* No public address (fail: {said}); the app is at {share.url} all the same."
    )
    assert err == "" or "GET /" in err  # werkzeug's line of the request above
    assert share.public_url is None
    assert "PUBLIC_URL" not in plain.config


@pytest.mark.parametrize("nonsense", [None, "https://x.example.org"])
def test_a_provider_that_gives_no_tunnel_is_a_sentence_too(plain, run, capsys, nonsense):
    share = run(plain, lambda address, token: nonsense, port=0)
    assert requests.get(share.url, timeout=10).text == "hello"
    assert f"it gave {nonsense!r} and no Tunnel" in capsys.readouterr().out


def test_advice_for_who_has_no_token_is_not_given_to_who_has_one(plain, run, nobody, capsys):
    install("cloudflared.py", nobody)
    (nobody / "fate").write_text("refused")
    run(plain, "auto", port=0)
    out = " ".join(capsys.readouterr().out.split())
    assert "cloudflared: it opened no tunnel" in out
    assert "get a free token" not in out


def test_a_client_that_falls_silent_gives_its_place_back(make_classifier, run):
    classifier = make_classifier(receive_timeout_s=0.2, max_in_flight=1)
    share = run(create_app(classifier.settings, classifier), none, port=0)
    with socket.create_connection(("127.0.0.1", share.port)) as silent:
        silent.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        wait_until(lambda: classifier.places.taken == 1)
        wait_until(lambda: classifier.places.taken == 0)
    assert requests.post(f"{share.url}/predict", data=picture(), timeout=10).ok


def test_our_own_app_is_not_logged_twice(app, plain, run, caplog):
    caplog.set_level("INFO", "werkzeug")
    for one, lines in ((app, 0), (plain, 1)):
        requests.get(f"{run(one, none, port=0).url}/name", timeout=10)
        assert sum(record.name == "werkzeug" for record in caplog.records) == lines


def test_a_provider_that_hangs_is_not_waited_for_and_its_late_tunnel_is_closed(
    plain, run, monkeypatch, capsys
):
    monkeypatch.setattr(launcher, "OPEN_S", 0.1)
    come, closed = threading.Event(), []

    def hang(address, token):
        come.wait(10)
        return Tunnel("https://late.example.org", lambda: closed.append(True))

    assert run(plain, hang, port=0).public_url is None
    assert "hang: no answer in time" in capsys.readouterr().out
    come.set()
    wait_until(lambda: closed)


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """Neither token nor program; the one folder of the PATH is the result."""
    monkeypatch.delenv("NGROK_AUTHTOKEN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("pyngrok.conf.DEFAULT_NGROK_CONFIG_PATH", str(tmp_path / "ngrok.yml"))
    return tmp_path


@pytest.mark.usefixtures("nobody")
def test_where_nobody_can_one_paragraph_says_what_each_lacks_and_what_helps(plain, run, capsys):
    run(plain, "auto", port=0)
    running, *paragraph = capsys.readouterr().out.splitlines()
    assert running.startswith(" * Running on http://127.0.0.1:")
    assert [line[:3] for line in paragraph] == [" * "] + ["   "] * (len(paragraph) - 1)
    text = " ".join(" ".join(paragraph).split())
    for part in (
        "ngrok: it needs the token of a free account; pyngrok: ",
        "cloudflared: it is not on the PATH; colab: this is no Colab notebook",
        "https://dashboard.ngrok.com/get-started/your-authtoken and set it as NGROK_AUTHTOKEN",
    ):
        assert part in text


@pytest.mark.usefixtures("nobody")
def test_one_that_was_chosen_by_name_and_is_missing_is_one_sentence(plain, run, capsys):
    share = run(plain, "cloudflared", port=0)
    text = " ".join(capsys.readouterr().out.splitlines()[-2:])
    assert "No public address (cloudflared: it is not on the PATH); the app is at" in text
    assert requests.get(share.url, timeout=10).ok


def test_a_name_that_is_none_is_refused_in_the_first_line(plain):
    with pytest.raises(ValueError, match="There is no provider 'ngork'"):
        run_with_ngrok(plain, "ngork")


def test_where_the_first_is_refused_the_next_one_serves_and_the_refusal_is_said(
    plain, run, nobody, capsys, monkeypatch
):
    use_modules(monkeypatch)
    monkeypatch.setitem(sys.modules, "pyngrok", None)
    monkeypatch.setitem(sys.modules, "google", None)
    monkeypatch.setenv("NGROK_AUTHTOKEN", "revoked")
    install("cloudflared.py", nobody)
    share = run(plain, "auto", port=0)
    assert share.url == "https://red-green-blue.trycloudflare.com"
    text = " ".join(capsys.readouterr().out.split())
    assert " * Not by ngrok: the token was reset or revoked" in text
    assert "pyngrok" not in text.partition("Not by")[2]


def test_debugger_and_reloader_are_off_whoever_asks(plain, provider, run, monkeypatch, capsys):
    monkeypatch.setenv("FLASK_DEBUG", "1")
    monkeypatch.setenv("WERKZEUG_RUN_MAIN", "true")  # as in a reloader's child
    share = run(plain, provider, port=0, debug=True, use_reloader=True)
    assert not plain.debug
    assert "Neither debugger nor reloader: the address is public." in capsys.readouterr().out
    assert requests.get(f"{share.local_url}/console", timeout=10).status_code == 404
    assert len(provider.open) == 1


def test_under_flask_run_flask_itself_serves(plain, provider, monkeypatch, capsys):
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")
    run_with_ngrok(plain, provider)
    assert plain.run(port=0) is None
    assert provider.open == []
    assert "Ignoring a call to 'app.run()'" in capsys.readouterr().out


def test_a_public_address_that_asks_for_no_token_comes_with_the_line_that_makes_it_ask(
    app, run, capsys
):
    share = run(app, lambda address, token: Tunnel("https://x.example.org", lambda: None), port=0)
    out = capsys.readouterr().out
    assert "Whoever has this address can use the app." in out
    assert out.endswith(f"\n   {launcher.TOKEN_LINE}\n")
    assert share.public_url


@pytest.mark.parametrize("setting", ["tokens", "tokens_file"])
def test_one_that_asks_for_a_token_comes_without_a_warning(make_classifier, run, capsys, setting):
    classifier = make_classifier(**{setting: ("t" * 16,)})
    app = create_app(classifier.settings, classifier)
    share = run(app, lambda address, token: Tunnel("https://x.example.org", lambda: None), port=0)
    assert capsys.readouterr().out.splitlines()[1:] == [" * Running on https://x.example.org"]
    assert requests.post(f"{share.local_url}/predict", timeout=10).status_code == 401


def test_the_line_that_makes_it_ask_for_a_token_does(monkeypatch, capsys):
    monkeypatch.setenv("PREDICTOR_TOKENS", "")
    exec(launcher.TOKEN_LINE, {})
    (token,) = Settings.from_env().tokens
    assert len(token) == 32
    assert capsys.readouterr().out == f"{token}\n"


def test_another_app_is_warned_of_without_our_settings(plain, provider, run, capsys):
    plain.extensions["classifier"] = "its own"
    run(plain, provider, port=0)
    out = capsys.readouterr().out
    assert "Whoever has this address can use the app." in out
    assert "PREDICTOR" not in out


def test_the_model_begins_to_load_when_the_app_is_shared(run):
    loaded = threading.Event()
    classifier = Classifier(Settings(), load=lambda _: loaded.set() or toy_engine())
    run(create_app(classifier.settings, classifier), none, port=0)
    assert loaded.wait(10)
    classifier.loading.result(10)
    classifier.close()


def test_in_colab_its_pages_may_show_the_app(app, client, run, monkeypatch):
    use_modules(monkeypatch)
    share = run(app, "colab", port=0)
    policy = requests.get(share.local_url, timeout=10).headers["Content-Security-Policy"]
    assert policy.endswith(
        "frame-ancestors https://colab.research.google.com https://*.googleusercontent.com"
    )


def test_colabs_own_proxy_is_no_public_address(plain, run, monkeypatch, capsys):
    use_modules(monkeypatch)
    share = run(plain, "colab", port=0)
    assert share.public_url is None
    text = " ".join(capsys.readouterr().out.split())
    assert f"Colab shows port {share.port}." in text
    assert "to you alone" in text
    assert "Whoever has this address" not in text


@pytest.mark.parametrize(
    ("kernel", "ancestors"),
    [(True, "http://localhost:* http://127.0.0.1:*"), (False, "'none'")],
    ids=["a notebook of this machine", "no notebook"],
)
def test_elsewhere_only_a_notebook_of_this_machine_may(app, run, monkeypatch, kernel, ancestors):
    monkeypatch.setattr(sys, "modules", {k: v for k, v in sys.modules.items() if k != "ipykernel"})
    if kernel:
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
    share = run(app, none, port=0)
    policy = requests.get(share.local_url, timeout=10).headers["Content-Security-Policy"]
    assert policy.endswith(f"frame-ancestors {ancestors}")


def test_the_apps_own_choice_of_frames_stays(app, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    app.config["FRAME_ANCESTORS"] = "https://hub.example.org"
    run(app, none, port=0)
    assert app.config["FRAME_ANCESTORS"] == "https://hub.example.org"


@pytest.fixture
def as_in_a_terminal():
    """Signals reach what the test starts, also where the tests run in the background."""
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
def test_whoever_ends_the_app_ends_the_tunnel(tmp_path, command, number):
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
    wait_until(lambda: not is_running(tmp_path / "process"))
    assert "Traceback" not in err
    assert re.match(r" \* Running on http://127.0.0.1:\d+\n", lines[0])
