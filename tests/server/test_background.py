import errno
import socket

import pytest
import requests
from flask import Flask

from predictor.server.background import NEXT_PORTS, BackgroundServer


@pytest.fixture
def serve():
    """Serve a greeting; all are closed at the end."""
    app, servers = Flask("greeter"), []
    app.add_url_rule("/", view_func=lambda: "hello")

    def serve(host="127.0.0.1", port=0):
        servers.append(BackgroundServer(app, host, port))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def test_it_serves_as_soon_as_it_is_there(serve):
    assert requests.get(serve().url, timeout=10).text == "hello"


@pytest.mark.parametrize(
    ("host", "reached"),
    [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost"), ("0.0.0.0", "127.0.0.1")],
)
def test_its_address_is_one_that_this_machine_reaches(serve, host, reached):
    server = serve(host)
    assert server.url == f"http://{reached}:{server.port}"
    assert requests.get(server.url, timeout=10).ok


def test_it_serves_ipv6_too(serve):
    try:
        server = serve("::1")
    except OSError:
        pytest.skip("no IPv6 here")
    assert server.url == f"http://[::1]:{server.port}"
    assert requests.get(server.url, timeout=10).ok


def test_a_port_that_is_taken_becomes_the_next_one_that_is_free(serve):
    first = serve()
    second = serve(port=first.port)
    assert first.port < second.port <= first.port + NEXT_PORTS
    assert requests.get(second.url, timeout=10).text == "hello"


def test_a_port_is_free_again_as_soon_as_it_is_closed(serve):
    first = serve()
    requests.get(first.url, timeout=10)  # leaves a connection that is about to end
    first.close()
    assert serve(port=first.port).port == first.port


def test_where_nobody_can_listen_the_reason_is_raised_and_the_process_goes_on(serve):
    with pytest.raises(OSError, match="assign requested address") as raised:
        serve("192.0.2.1")
    assert raised.value.errno == errno.EADDRNOTAVAIL


def test_once_closed_it_answers_nobody_on_connections_that_are_open_either(serve):
    server = serve()
    with requests.Session() as session:
        session.get(server.url, timeout=10)
        server.close()
        with pytest.raises(requests.ConnectionError):
            session.get(server.url, timeout=10)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port), timeout=10)
