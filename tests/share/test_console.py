"""The messages that the two lines print."""

import sys

import pytest
import requests

from predictor.settings import Settings
from predictor.share import TunnelError, launcher
from tunnels import install, open_example, use_modules


@pytest.fixture
def empty_path(monkeypatch, tmp_path):
    """No ngrok token, and an empty folder as the only one on the PATH."""
    monkeypatch.delenv("NGROK_AUTHTOKEN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("pyngrok.conf.DEFAULT_NGROK_CONFIG_PATH", str(tmp_path / "ngrok.yml"))
    return tmp_path


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (TunnelError("out of order"), "out of order"),
        (RuntimeError("an accident"), "RuntimeError: an accident"),
    ],
)
def test_without_a_tunnel_the_app_is_served_locally(plain, run, capsys, failure, reason):
    def fail(address, token):
        raise failure

    share = run(plain, fail, port=0)
    assert requests.get(share.url, timeout=10).text == "hello"
    out, err = capsys.readouterr()
    text = " ".join(out.split())
    assert text.endswith(f"* No public URL (fail: {reason}). The app still runs at {share.url}.")
    assert err == "" or "GET /" in err  # werkzeug's log of the request above
    assert share.public_url is None
    assert "PUBLIC_URL" not in plain.config


@pytest.mark.parametrize("result", [None, "https://x.example.org"])
def test_a_provider_that_returns_no_tunnel_is_reported(plain, run, printed, result):
    share = run(plain, lambda address, token: result, port=0)
    assert requests.get(share.url, timeout=10).text == "hello"
    assert f"it returned {result!r} instead of a Tunnel" in printed()


@pytest.mark.usefixtures("empty_path")
def test_without_any_provider_a_message_says_what_each_lacks(plain, run, capsys):
    run(plain, "auto", port=0)
    running, *paragraph = capsys.readouterr().out.splitlines()
    assert running.startswith(" * Running on http://127.0.0.1:")
    assert [line[:3] for line in paragraph] == [" * "] + ["   "] * (len(paragraph) - 1)
    text = " ".join(" ".join(paragraph).split())
    for part in (
        "ngrok: it needs the token of a free ngrok account; pyngrok: ",
        "cloudflared: it is not on the PATH; colab: this is not a Colab notebook",
        "https://dashboard.ngrok.com/get-started/your-authtoken, set it as NGROK_AUTHTOKEN",
    ):
        assert part in text


def test_no_advice_about_tokens_if_a_provider_was_available(plain, run, empty_path, printed):
    install("cloudflared.py", empty_path)
    (empty_path / "mode").write_text("refused")
    run(plain, "auto", port=0)
    text = printed()
    assert "cloudflared: it ended without opening a tunnel" in text
    assert "free account from" not in text


@pytest.mark.usefixtures("empty_path")
def test_a_single_provider_that_is_missing_is_reported(plain, run, printed):
    share = run(plain, "cloudflared", port=0)
    assert printed().endswith(
        f"No public URL (cloudflared: it is not on the PATH). The app still runs at {share.url}."
    )
    assert requests.get(share.url, timeout=10).ok


def test_if_a_provider_fails_the_next_one_is_used(plain, run, empty_path, printed, monkeypatch):
    use_modules(monkeypatch)
    monkeypatch.setitem(sys.modules, "pyngrok", None)
    monkeypatch.setitem(sys.modules, "google", None)
    monkeypatch.setenv("NGROK_AUTHTOKEN", "revoked")
    install("cloudflared.py", empty_path)
    share = run(plain, "auto", port=0)
    assert share.url == "https://red-green-blue.trycloudflare.com"
    text = printed()
    assert " * ngrok could not be used: the token was reset or revoked" in text
    assert "pyngrok could not be used" not in text


def test_a_public_url_without_a_token_prints_a_warning(app, run, capsys):
    share = run(app, open_example, port=0)
    out = capsys.readouterr().out
    assert "Anyone who has this URL can use the app." in out
    assert out.endswith(f"\n   {launcher.TOKEN_LINE}\n")
    assert share.public_url


@pytest.mark.parametrize("setting", ["tokens", "tokens_file"])
def test_an_app_that_requires_a_token_prints_no_warning(make_app, run, capsys, setting):
    share = run(make_app(**{setting: ("t" * 16,)}), open_example, port=0)
    assert capsys.readouterr().out.splitlines()[1:] == [" * Running on https://x.example.org"]
    assert requests.post(f"{share.local_url}/predict", timeout=10).status_code == 401


def test_the_printed_token_line_sets_a_valid_token(monkeypatch, capsys):
    monkeypatch.setenv("PREDICTOR_TOKENS", "")
    exec(launcher.TOKEN_LINE, {})
    (token,) = Settings.from_env().tokens
    assert len(token) == 32
    assert capsys.readouterr().out == f"{token}\n"


def test_the_warning_for_other_apps_names_no_setting_of_ours(plain, provider, run, printed):
    plain.extensions["predictor"] = "its own"
    run(plain, provider, port=0)
    text = printed()
    assert "Anyone who has this URL can use the app." in text
    assert "PREDICTOR" not in text


def test_colabs_proxy_is_not_reported_as_public(plain, run, monkeypatch, printed):
    use_modules(monkeypatch)
    share = run(plain, "colab", port=0)
    assert share.public_url is None
    text = printed()
    assert f"Colab shows port {share.port}." in text
    assert "to you only" in text
    assert "Anyone who has this URL" not in text
