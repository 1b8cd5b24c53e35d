"""What the server refuses before the app has the whole request, read by a page of another origin.

Without these headers, the page would only see a network error.
"""

from contextlib import suppress

import pytest
from PIL import Image

from faulty import HANGS
from pictures import encode
from running_server import ToyServer
from waiting import wait_until

ORIGIN, ID = "capacitor://localhost", "a-clients-own-id"
HEADERS = f"Host: a\r\nOrigin: {ORIGIN}\r\nX-Request-ID: {ID}\r\n".encode()
POST = b"POST /predict HTTP/1.1\r\n" + HEADERS
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LONG = b"Content-Length: 900000\r\n\r\n"
REFUSED = {
    "no HTTP": (b"\x16\x03\x01\r\n" + HEADERS + b"\r\n", 400),
    "malformed header": (POST + b"no colon\r\n\r\n", 400),
    "malformed header first": (POST.replace(b"Host", b"no colon\r\nHost") + b"\r\n", 400),
    "two lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    "coding": (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    "malformed chunk": (CHUNKED + b"size\r\n", 400),
    "malformed trailer": (CHUNKED + b"0\r\nno colon\r\n\r\n", 400),
    "slow head": (POST, 408),
    "slow body": (POST + LONG + b"x", 408),
    "large": (POST + b"Content-Length: 1000001\r\n\r\n", 413),
    "large in chunks": (CHUNKED + b"f4241\r\n", 413),
    "small chunks": (CHUNKED + b"1\r\nx\r\n" * 2000, 413),
    "large without a photo": (POST.replace(b"POST /predict", b"GET /docs") + LONG, 413),
    "long URL": (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\n" + HEADERS + b"\r\n", 414),
    "large head": (POST + b"X: " + b"x" * 70_000, 431),
    "many fields": (POST + b"Origin: x\r\nX-Request-ID: x\r\n" * 60 + b"\r\n", 431),
    "blanks": (POST + b"Origin:" + b" " * 9000 + b"x\r\n\r\n", 431),
    "address": (POST.replace(b"predict", b"nothing") + LONG, 404),
    "method": (POST.replace(b"POST", b"DELETE") + LONG, 405),
}  # fmt: skip


@pytest.fixture(scope="module")
def settings():
    return {"cors_origins": ORIGIN, "max_upload_bytes": 1_000_000}


@pytest.fixture(scope="module")
def server(settings):
    running = ToyServer(receive_timeout_s=1, **settings)
    yield running.wait_until_ready()
    running.close()


def refusal(connection):
    """The status and the headers of the answer, in lower case."""
    data = b""
    while b"\r\n\r\n" not in data and (piece := connection.recv(65_536)):
        data += piece
    first, *lines = data.decode().partition("\r\n\r\n")[0].split("\r\n")
    return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines)


def is_readable(headers):
    """Whether a page of the origin can read the answer, and knows its id."""
    exposed = headers.get("access-control-expose-headers", "")
    return (
        headers.get("access-control-allow-origin") == ORIGIN
        and headers["x-request-id"] == ID
        and {"retry-after", "x-request-id", "server-timing"} <= set(exposed.split(", "))
    )


@pytest.mark.parametrize("kind", REFUSED)
def test_an_early_refusal_is_readable_for_an_allowed_origin(server, connect, kind):
    sent, expected = REFUSED[kind]
    status, headers = refusal(connect(server, sent))
    assert status == expected
    assert is_readable(headers)


def test_another_origin_cannot_read_an_early_refusal(server, connect):
    sent = REFUSED["malformed header"][0].replace(ORIGIN.encode(), b"https://evil.test")
    status, headers = refusal(connect(server, sent))
    assert status == 400
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.fixture
def start_small(start_toy, settings):
    """Start servers with one slot and four connections."""
    limits = {"max_in_flight": 1, **settings}
    return lambda **options: start_toy("--worker-connections", "4", **limits, **options)


def test_the_refusal_of_a_loading_server_is_readable(start_small, connect):
    server = start_small(environ={"FAULTY_LOAD_S": "60"})
    status, headers = refusal(connect(server, POST + LONG))
    assert status == 503
    assert is_readable(headers)


def test_the_refusal_of_a_server_without_a_free_slot_is_readable(start_small, connect):
    server = start_small().wait_until_ready()
    photo = encode(Image.new("RGB", (32, 24), HANGS))
    connect(server, POST + b"Content-Length: %d\r\n\r\n" % len(photo), photo)
    refused = wait_until(lambda: refused_or_none(connect(server, POST + LONG)))
    assert refused[0] == 503
    assert is_readable(refused[1])


def refused_or_none(connection):
    """The refusal, or None if the server waits for the body."""
    connection.settimeout(1)
    with suppress(TimeoutError):
        return refusal(connection)


def test_the_refusal_of_an_evicted_client_is_readable(start_small, connect):
    server = start_small().wait_until_ready()
    connections = [connect(server, POST + b"Expect: 100-continue\r\n" + LONG)]
    while len(connections) < 5:
        assert b" 100 " in connections[-1].recv(65_536)  # the server has read the head
        connections.append(connect(server, POST + b"Expect: 100-continue\r\n" + LONG))
    status, headers = refusal(connections[0])
    assert status == 408
    assert is_readable(headers)


@pytest.mark.parametrize("lines", ["", "SCRIPT_NAME: /other\r\n"])
def test_a_path_prefix_of_the_environment_may_be_missing(start_toy, connect, lines):
    """Then gunicorn fails, and the client would get no answer."""
    server = start_toy(under=("env", "SCRIPT_NAME=/photos"))
    paths = {"/healthz": 200, "/photos/healthz": 200, "/photoshealthz": 404, "/other/healthz": 404}
    for path, status in paths.items():
        request = f"GET {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"
        if not lines or path == "/healthz":
            assert refusal(connect(server, request.encode()))[0] == status
    assert refusal(connect(server, b"no HTTP\r\n\r\n"))[0] == 400
