"""The two lines: where the app is served, and what running a cell again replaces."""

import socket
import sys
import threading

import pytest
import requests

from app import create_app
from conftest import app_of, store_around, store_of
from pictures import picture
from predictor import share as package
from predictor.engine.classifier import Classifier
from predictor.errors import InferenceFailed
from predictor.settings import Settings
from predictor.share import Tunnel, launcher, run_with_ngrok
from toy import toy_model
from tunnels import fail_to_open, make_plain, use_modules
from waiting import wait_until


def test_the_public_names_of_the_package():
    assert sorted(package.__all__) == [
        "NAMES", "Provider", "Share", "Tunnel", "TunnelError", "publish", "run_with_ngrok",
        "signals_interrupt",
    ]  # fmt: skip
    assert all(hasattr(package, name) for name in package.__all__)


def test_the_two_lines_print_the_local_and_the_public_url(plain, provider, run, capsys):
    share = run(plain, provider, port=0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f" * Running on {share.local_url}", " * Running on https://0.example.org"]
    assert share.url == share.public_url == plain.config["PUBLIC_URL"] == "https://0.example.org"
    assert requests.get(share.local_url, timeout=10).text == "hello"
    assert repr(share) == "<Share https://0.example.org>"


@pytest.mark.parametrize(
    "arguments",
    [
        lambda port: (("127.0.0.1", port), {}),
        lambda port: (("localhost", port, False, False), {"threaded": True}),
        lambda port: ((), {"host": "127.0.0.1", "port": port}),
        lambda port: ((None, str(port)), {"debug": None, "load_dotenv": True}),
        lambda port: ((), {"port": port, "ssl_context": "adhoc", "processes": 3}),
    ],
    ids=["positional", "all positional", "keywords", "as text", "ignored"],
)
def test_app_run_accepts_all_arguments_of_flasks_run(plain, provider, run, free_port, arguments):
    args, options = arguments(free_port)
    share = run(plain, provider, *args, **options)
    assert share.port == free_port
    assert share.local_url.startswith("http://")


def test_a_shared_app_has_no_debugger_and_no_reloader(plain, provider, run, monkeypatch, printed):
    monkeypatch.setenv("FLASK_DEBUG", "1")
    monkeypatch.setenv("WERKZEUG_RUN_MAIN", "true")  # as in a reloader's child process
    share = run(plain, provider, port=0, debug=True, use_reloader=True)
    assert not plain.debug
    assert "The debugger and the reloader are off" in printed()
    assert requests.get(f"{share.local_url}/console", timeout=10).status_code == 404
    assert len(provider.open) == 1


def test_under_flask_run_app_run_does_nothing(plain, provider, monkeypatch, printed):
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")
    run_with_ngrok(plain, provider)
    assert plain.run(port=0) is None
    assert provider.open == []
    assert "Ignoring a call to 'app.run()'" in printed()


def test_background_can_be_set_in_either_of_the_two_lines(plain, provider):
    run_with_ngrok(plain, provider, background=True)
    share = plain.run(port=0)
    assert share.url == "https://0.example.org"
    share.close()


def test_an_unknown_provider_is_refused_before_app_run(plain):
    with pytest.raises(ValueError, match="Unknown provider 'ngork'"):
        run_with_ngrok(plain, "ngork")


def test_sharing_the_app_starts_loading_the_model(run):
    loaded = threading.Event()
    classifier = Classifier(Settings(), load=lambda *_: loaded.set() or toy_model())
    run(app_of(classifier), fail_to_open, port=0)
    assert loaded.wait(10)
    classifier.loading.result(10)
    classifier.close()


def test_a_tunnel_opened_after_the_timeout_is_closed(plain, run, monkeypatch, printed):
    monkeypatch.setattr(launcher, "OPEN_TIMEOUT_S", 0.1)
    release, closed = threading.Event(), []

    def hang(address, token):
        release.wait(10)
        return Tunnel("https://late.example.org", lambda: closed.append(True))

    assert run(plain, hang, port=0).public_url is None
    assert "hang: it did not answer within 0.1 s" in printed()
    release.set()
    wait_until(lambda: closed)


# Host and port


def test_the_default_port_is_flasks(plain, provider, run, printed):
    share = run(plain, provider)
    assert share.port == 5000 or "Port 5000 is taken" in printed()


@pytest.mark.parametrize("port", [-1, 65536, "70000"])
def test_a_port_out_of_range_is_a_value_error(plain, provider, run, port):
    with pytest.raises(ValueError, match="it must be between 0 and 65535"):
        run(plain, provider, port=port)


def test_server_name_sets_the_default_host_and_port(plain, provider, run, free_port):
    plain.config["SERVER_NAME"] = f"localhost:{free_port}"
    assert run(plain, provider).local_url == f"http://localhost:{free_port}"


def test_a_taken_port_is_replaced_by_the_next_free_one(plain, provider, run, printed):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        share = run(plain, provider, port=port)
    assert share.port > port
    assert f"* Port {port} is taken; using port {share.port} instead." in printed()


# Running a cell again


@pytest.mark.parametrize("another_app", [False, True])
def test_running_a_cell_again_replaces_server_and_tunnel(
    plain, provider, run, free_port, another_app
):
    run(plain, provider, port=free_port)
    again = make_plain("another") if another_app else plain
    share = run(again, provider, port=free_port)
    assert share.port == free_port
    assert (provider.open, provider.closed) == (
        ["https://1.example.org"],
        ["https://0.example.org"],
    )
    assert requests.get(f"{share.local_url}/name", timeout=10).text == again.name


def test_a_share_is_replaced_even_if_its_port_was_taken(plain, provider, run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        first = run(plain, provider, port=port)
        second = run(plain, provider, port=port)
    assert second.port == first.port
    assert len(provider.open) == 1


def test_two_ports_are_two_shares(plain, provider, run, free_port):
    run(plain, provider, port=free_port)
    run(make_plain(), provider, port=0)
    assert len(provider.open) == 2


def test_at_port_0_only_an_app_of_the_same_name_is_replaced(provider, run):
    shares = [run(make_plain(name), provider, port=0) for name in ("one", "two")]
    assert [requests.get(f"{s.local_url}/name", timeout=10).text for s in shares] == ["one", "two"]
    run(make_plain("two"), provider, port=0)
    assert provider.closed == ["https://1.example.org"]


def test_the_model_of_a_replaced_app_is_closed(make_app, run, free_port):
    first, second = make_app(), make_app()
    run(first, fail_to_open, port=free_port)
    run(second, fail_to_open, port=free_port)
    with pytest.raises(InferenceFailed):
        store_of(first).expect_healthy()
    store_of(second).expect_healthy()


def test_running_the_same_app_again_keeps_its_model(app, store, run, free_port):
    run(app, fail_to_open, port=free_port)
    run(app, fail_to_open, port=free_port)
    store.expect_healthy()


def test_a_model_that_another_share_uses_is_kept(classifier, run, free_port, make_app):
    store = store_around(classifier)
    first, second = (create_app(classifier.settings, store) for _ in range(2))
    run(first, fail_to_open, port=free_port)
    share = run(second, fail_to_open, port=free_port)
    assert requests.post(f"{share.url}/predict", data=picture(), timeout=10).ok
    elsewhere = run(first, fail_to_open, port=0)
    run(make_app(), fail_to_open, port=free_port)
    assert requests.post(f"{elsewhere.url}/predict", data=picture(), timeout=10).ok


def test_a_closed_share_does_not_keep_its_model(app, store, run, free_port, make_app):
    run(app, fail_to_open, port=0).close()
    run(app, fail_to_open, port=free_port)
    run(make_app(), fail_to_open, port=free_port)
    with pytest.raises(InferenceFailed):
        store.expect_healthy()


# Which pages may show the app in a frame


def frame_ancestors(share):
    policy = requests.get(share.local_url, timeout=10).headers["Content-Security-Policy"]
    return policy.partition("frame-ancestors ")[2]


def test_in_colab_only_colab_may_frame_the_page(app, run, monkeypatch):
    use_modules(monkeypatch)
    colab = "https://colab.research.google.com https://*.googleusercontent.com"
    assert frame_ancestors(run(app, "colab", port=0)) == colab


@pytest.mark.parametrize(
    ("kernel", "ancestors"),
    [(True, "http://localhost:* http://127.0.0.1:*"), (False, "'none'")],
    ids=["local notebook", "no notebook"],
)
def test_outside_colab_only_a_local_notebook_may_frame_the_page(
    app, run, monkeypatch, kernel, ancestors
):
    monkeypatch.setattr(sys, "modules", {k: v for k, v in sys.modules.items() if k != "ipykernel"})
    if kernel:
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert frame_ancestors(run(app, fail_to_open, port=0)) == ancestors


def test_frame_ancestors_in_the_apps_config_are_kept(app, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    app.config["FRAME_ANCESTORS"] = "https://hub.example.org"
    assert frame_ancestors(run(app, fail_to_open, port=0)) == "https://hub.example.org"
