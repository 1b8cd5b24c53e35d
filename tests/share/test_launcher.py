"""The two lines: what is served where, again and until when."""

import socket
import threading

import pytest
import requests

from app import create_app
from pictures import picture
from predictor import share as package
from predictor.share import Tunnel, run_with_ngrok
from tunnels import make_plain, none
from waiting import wait_until


def test_the_names_are_exact():
    assert sorted(package.__all__) == [
        "NAMES", "Provider", "Share", "Tunnel", "TunnelError", "publish", "run_with_ngrok",
        "signals_interrupt",
    ]  # fmt: skip
    assert all(hasattr(package, name) for name in package.__all__)


def test_two_lines_print_the_public_address_as_ever(plain, provider, run, capsys):
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
    ids=["positional", "all positional", "keywords", "as text", "of no account"],
)
def test_app_run_takes_what_flasks_takes(plain, provider, run, free_port, arguments):
    args, options = arguments(free_port)
    share = run(plain, provider, *args, **options)
    assert share.port == free_port
    assert share.local_url.startswith("http://")


def test_the_port_is_flasks_where_nobody_says_another(plain, provider, run, capsys):
    share = run(plain, provider)
    assert share.port == 5000 or "Port 5000 is taken" in capsys.readouterr().out


@pytest.mark.parametrize("port", [-1, 65536, "70000"])
def test_a_port_that_is_none_is_refused_with_the_range(plain, provider, run, port):
    with pytest.raises(ValueError, match="it can be 0 to 65535"):
        run(plain, provider, port=port)


def test_the_server_name_of_the_config_says_where(plain, provider, run, free_port):
    plain.config["SERVER_NAME"] = f"localhost:{free_port}"
    assert run(plain, provider).local_url == f"http://localhost:{free_port}"


def test_a_taken_port_is_replaced_by_the_next_free_one_and_that_is_said(
    plain, provider, run, capsys
):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        share = run(plain, provider, port=port)
    assert share.port > port
    assert f" * Port {port} is taken; this is the next one that is free." in capsys.readouterr().out


@pytest.mark.parametrize("another_app", [False, True])
def test_running_the_cell_again_replaces_the_server_and_the_tunnel(
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


def test_also_where_the_port_was_taken_by_somebody_else(plain, provider, run):
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


def test_the_model_of_the_app_that_was_replaced_makes_room(
    classifier, make_classifier, run, free_port
):
    run(create_app(classifier.settings, classifier), none, port=free_port)
    other = make_classifier()
    run(create_app(other.settings, other), none, port=free_port)
    assert classifier.ailment() == "An inference thread has ended."
    assert other.ailment() is None


def test_running_the_cell_again_keeps_the_model_of_the_same_app(app, classifier, run, free_port):
    run(app, none, port=free_port)
    run(app, none, port=free_port)
    assert classifier.ailment() is None


def test_a_model_that_another_app_still_serves_is_kept(classifier, run, free_port, make_classifier):
    first, second = (create_app(classifier.settings, classifier) for _ in range(2))
    run(first, none, port=free_port)
    share = run(second, none, port=free_port)
    assert requests.post(f"{share.url}/predict", data=picture(), timeout=10).ok
    elsewhere = run(first, none, port=0)
    other = make_classifier()
    run(create_app(other.settings, other), none, port=free_port)
    assert requests.post(f"{elsewhere.url}/predict", data=picture(), timeout=10).ok


def test_a_share_that_was_closed_keeps_no_model(classifier, run, free_port, make_classifier):
    app = create_app(classifier.settings, classifier)
    run(app, none, port=0).close()
    run(app, none, port=free_port)
    other = make_classifier()
    run(create_app(other.settings, other), none, port=free_port)
    assert classifier.ailment() == "An inference thread has ended."


def test_of_two_apps_at_any_port_neither_takes_the_others_place(provider, run):
    shares = [run(make_plain(name), provider, port=0) for name in ("one", "two")]
    assert [requests.get(f"{s.local_url}/name", timeout=10).text for s in shares] == ["one", "two"]
    run(make_plain("two"), provider, port=0)
    assert provider.closed == ["https://1.example.org"]


def test_closing_one_of_an_apps_two_shares_leaves_it_the_others_address(plain, provider, run):
    first = run(plain, provider, port=0)
    plain.name = "another"
    second = run(plain, provider, port=0)
    first.close()
    assert plain.config["PUBLIC_URL"] == second.url


def test_closing_ends_the_tunnel_and_the_server_and_may_be_done_twice(plain, provider, run):
    share = run(plain, provider, port=0)
    share.close()
    share.close()
    assert provider.open == []
    assert "PUBLIC_URL" not in plain.config
    with pytest.raises(requests.ConnectionError):
        requests.get(share.local_url, timeout=10)


def test_a_tunnel_that_cannot_be_closed_does_not_keep_the_server(plain, run):
    def broken():
        raise OSError("The agent is gone.")

    share = run(plain, lambda address, token: Tunnel("https://x.example.org", broken), port=0)
    share.close()
    with pytest.raises(requests.ConnectionError):
        requests.get(share.local_url, timeout=10)


def test_without_background_it_serves_until_it_is_replaced(plain, provider):
    run_with_ngrok(plain, provider)
    thread = threading.Thread(target=plain.run, kwargs={"port": 0})
    thread.start()
    wait_until(lambda: "PUBLIC_URL" in plain.config)
    assert thread.is_alive()
    share = plain.run(port=0, background=True)
    thread.join(10)
    share.close()
    assert not thread.is_alive()


def test_background_may_be_asked_for_in_either_line(plain, provider):
    run_with_ngrok(plain, provider, background=True)
    share = plain.run(port=0)
    assert share.url == "https://0.example.org"
    share.close()
