import errno
import socket

import pytest
import requests
from flask import Flask

from predictor.server.background import NEXT_PORTS, BackgroundServer


@pytest.fixture
def serve():
    """Serve an app that says hello; the servers are closed after the test."""
    app, servers = Flask("greeter"), []
    app.add_url_rule("/", view_func=lambda: "hello")

    def serve(host="127.0.0.1", port=0):
        servers.append(BackgroundServer(app, host, port))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def test_a_new_server_answers_at_once(serve):
    assert requests.get(serve().url, timeout=10).text == "hello"


@pytest.mark.parametrize(
    ("host", "reached"),
    [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost"), ("0.0.0.0", "127.0.0.1")],
)
def test_the_url_is_reachable_from_this_machine(serve, host, reached):
    server = serve(host)
    assert server.url == f"http://{reached}:{server.port}"
    assert requests.get(server.url, timeout=10).ok


def test_ipv6_is_served(serve):
    try:
        server = serve("::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert server.url == f"http://[::1]:{server.port}"
    assert requests.get(server.url, timeout=10).ok


def test_a_taken_port_is_replaced_by_the_next_free_one(serve):
    first = serve()
    second = serve(port=first.port)
    assert first.port < second.port <= first.port + NEXT_PORTS
    assert requests.get(second.url, timeout=10).text == "hello"


def test_a_closed_server_frees_its_port(serve):
    first = serve()
    requests.get(first.url, timeout=10)  # leaves a connection in TIME_WAIT
    first.close()
    assert serve(port=first.port).port == first.port


def test_an_address_of_another_machine_raises_oserror(serve):
    with pytest.raises(OSError, match="assign requested address") as raised:
        serve("192.0.2.1")
    assert raised.value.errno == errno.EADDRNOTAVAIL


def test_a_closed_server_closes_its_open_connections(serve):
    server = serve()
    with requests.Session() as session:
        session.get(server.url, timeout=10)
        server.close()
        with pytest.raises(requests.ConnectionError):
            session.get(server.url, timeout=10)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port), timeout=10)
