"""A real gunicorn with many clients that read or send too slowly, and one honest client.

Each attack has more connections than the server has threads. The honest client must be answered
during the attack, and all that the attack held must be free after the time limit.
"""

import base64
import contextlib
import json
import re
import socket
import ssl
import struct

import psutil
import pytest
import requests

from pictures import picture
from running_server import ToyServer
from waiting import wait_until

TIMEOUT_S = 2
CLIENTS = 30
CUT = ("send-timeout", "evicted")
TOKEN = "correct-horse-battery"
LIMITS = {
    "receive_timeout_s": TIMEOUT_S, "max_in_flight": 2, "max_explanations": 0,
    "max_upload_bytes": 1_000_000,
}  # fmt: skip
GET = b"GET /docs/swagger-ui/swagger-ui-bundle.js HTTP/1.1\r\nHost: a\r\n%s\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: a\r\n%s"
RED = picture("red")


class Target:
    """A server, and how to talk to it: with TLS, with a token."""

    def __init__(self, server, certificate=None, token=None):
        self.server, self._certificate = server, certificate
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.lines = b"".join(f"{k}: {v}\r\n".encode() for k, v in self._headers.items())

    def get(self, path):
        options = {"headers": self._headers, "verify": self._certificate, "timeout": 30}
        return requests.get(self.server.url + path, **options)

    def predict(self):
        options = {"headers": self._headers, "verify": self._certificate, "timeout": 30}
        return requests.post(f"{self.server.url}/predict", data=RED, **options)

    def connect(self, receive_buffer=None):
        raw = socket.socket()
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(30)
        raw.connect(self.server.address)
        if not self._certificate:
            return raw
        context = ssl.create_default_context(cafile=self._certificate)
        return context.wrap_socket(raw, server_hostname="127.0.0.1")

    def count(self, *codes):
        """How many requests were refused or cut off for these reasons."""
        pattern = rf'predictor_rejected_total{{.*reason="(?:{"|".join(codes)})".*}} (\d+)'
        return sum(map(int, re.findall(pattern, self.get("/metrics").text)))


@pytest.fixture(scope="module", params=["plain", "TLS", "token", "two workers"])
def target(request, certificate):
    options, settings, found, workers = [], dict(LIMITS), {}, 1
    if request.param == "TLS":
        options = ["--certfile", certificate[0], "--keyfile", certificate[1]]
        found = {"certificate": certificate[0]}
    elif request.param == "token":
        settings["tokens"] = found["token"] = TOKEN
    elif request.param == "two workers":
        options, workers = ["--workers", "2"], 2
    server = ToyServer(*options, **settings)
    target = Target(server, **found)
    with contextlib.closing(server):
        wait_until(lambda: server.loaded == workers and target.get("/readyz").ok)
        yield target


def read_all(connection):
    """What the server still sends; a reset ends it, too."""
    received = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while part := connection.recv(65536):
            received += part
    return received


def statuses(connection):
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d+)", read_all(connection))]


@contextlib.contextmanager
def attack(target, *sent, receive_buffer=None):
    """Open many connections and send some bytes on each; then the honest client must be served."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(target.connect(receive_buffer)) for _ in range(CLIENTS)]
        for connection in found:
            for data in sent:
                connection.sendall(data)
        assert target.get("/healthz").ok
        assert target.predict().json()["class_name"] == "red_thing"
        yield found
        assert target.predict().json()["class_name"] == "red_thing"


def test_clients_that_do_not_read_hold_no_thread(target):
    before = target.count(*CUT)
    with attack(target, 5 * (GET % target.lines), receive_buffer=2048) as found:
        wait_until(lambda: target.count(*CUT) >= before + CLIENTS)
        for connection in found:
            assert len(read_all(connection)) < 8_000_000  # not all five responses


def test_clients_that_read_slowly_are_cut_off_in_time(target):
    """A byte now and then does not extend the time."""
    before = target.count(*CUT)
    with attack(target, 5 * (GET % target.lines), receive_buffer=2048) as found:

        def read_on():
            with contextlib.suppress(OSError):
                found[0].recv(1)
            return target.count(*CUT) >= before + CLIENTS

        wait_until(read_on)


def test_clients_that_do_not_read_refusals_hold_no_thread(target):
    unauthorised = (GET % b"").replace(b"/docs", b"/nothing")
    with attack(target, 200 * unauthorised, receive_buffer=2048):
        pass


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_an_endless_head_is_431_without_a_thread(target, method):
    head = method + b" / HTTP/1.1\r\nHost: a\r\n" + b"".join(
        b"X-%d: " % number + b"x" * 6000 + b"\r\n" for number in range(11)
    )  # fmt: skip
    with attack(target, head) as found:
        assert [statuses(connection) for connection in found] == [[431]] * CLIENTS


@pytest.mark.parametrize(
    "beginning",
    [
        b"POST / HT",
        POST % b"X: y",
        POST % b"%sContent-Length: 5000\r\n\r\n\xff\xd8",
        POST % b"%sTransfer-Encoding: chunked\r\n\r\n5000\r\n\xff\xd8",
        POST % b"%sTransfer-Encoding: chunked\r\n\r\n2\r\n\xff\xd8\r\n0\r\nX: y",
    ],
    ids=["request line", "head", "body", "chunk", "trailer"],
)
def test_a_dribbled_request_is_408_after_the_time_limit(target, beginning):
    sent = beginning.replace(b"%s", target.lines)
    with attack(target, sent) as found:
        for connection in found:

            def dribble(connection=connection):
                with contextlib.suppress(TimeoutError, ssl.SSLWantReadError):
                    try:
                        connection.settimeout(0.05)
                        connection.sendall(b"x")
                        return connection.recv(10_000) or b"closed"
                    except (ConnectionError, ssl.SSLEOFError):
                        return b"closed"

            answer = wait_until(dribble, timeout_s=3 * TIMEOUT_S + 30)
            assert answer.startswith(b"HTTP/1.1 408 ") or answer == b"closed"
    assert target.count("request-timeout") > 0


def test_incomplete_large_bodies_make_room_for_a_photo(target):
    """All connections of a worker together may hold 8 MiB.

    On a busy machine the first bodies may reach their time limit before the memory is full.
    """
    body = POST % target.lines + b"Content-Length: 999999\r\n\r\n" + b"x" * 999_000
    before = target.count("evicted")

    def evict():
        with attack(target, body):
            return target.count("evicted") > before

    wait_until(evict)


def test_a_refusal_needs_no_body_and_no_thread(target):
    """Too large, no such address."""
    large = POST % target.lines + b"Content-Length: 1000001\r\n\r\n"
    lost = (POST % target.lines).replace(b"/predict", b"/nothing") + b"Content-Length: 9\r\n\r\n"
    for head, status in ((large, 413), (lost, 404)):
        with attack(target, head) as found:
            assert [statuses(connection) for connection in found] == [[status]] * CLIENTS


def test_a_client_that_still_sends_reads_its_refusal(target):
    with target.connect() as connection:
        head = POST % target.lines + b"Content-Length: 50000000\r\n\r\n"
        connection.sendall(head + bytes(2_000_000))
        assert connection.recv(100_000).startswith(b"HTTP/1.1 413 ")


def test_a_long_chunked_body_where_none_is_expected_is_413(target):
    with target.connect() as connection:
        head = GET % (target.lines + b"Transfer-Encoding: chunked\r\n")
        connection.sendall(head + (b"ffff\r\n" + bytes(65_535) + b"\r\n") * 9)
        assert statuses(connection) == [413]


def test_clients_that_reset_their_connections_leave_nothing_behind(target):
    """They reset it while a thread works, or while the response is sent."""
    reset = struct.pack("ii", 1, 0)
    for _ in range(300):
        connection = target.connect()
        connection.sendall(GET % target.lines)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        connection.close()
    before = target.count("evicted")
    body = POST % target.lines + b"Content-Length: 999999\r\n\r\n" + b"x" * 999_000
    with contextlib.ExitStack() as stack:
        for _ in range(7):  # they fit into the 8 MiB of one worker
            stack.enter_context(target.connect()).sendall(body)
        assert target.predict().json()["class_name"] == "red_thing"
    assert target.count("evicted") == before


def test_half_a_connection_gets_its_answer(target):
    """A client that closes its sending side can still read, except over TLS."""
    with target.connect() as connection:
        if isinstance(connection, ssl.SSLSocket):
            pytest.skip("TLS has no half-closed connections here")
        head = POST % target.lines + b"Content-Length: %d\r\n\r\n" % len(RED)
        connection.sendall(head + RED)
        connection.shutdown(socket.SHUT_WR)
        assert b"red_thing" in read_all(connection)


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_half_a_connection_gets_an_answer_that_takes_long(target, version):
    """Thirty photos take 1.5 seconds. HTTP/1.0 has no interim response that could be a probe."""
    with target.connect() as connection:
        if isinstance(connection, ssl.SSLSocket):
            pytest.skip("TLS has no half-closed connections here")
        body = json.dumps({"images": [base64.b64encode(RED).decode()] * 30}).encode()
        head = POST.replace(b"1.1", version) % target.lines
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        connection.shutdown(socket.SHUT_WR)
        received = read_all(connection)
        answered = b"red_thing" in received.rpartition(b"\r\n\r\n")[2]
        assert (answered, b"100 Continue" in received) == ((version == b"1.1",) * 2)


def test_nothing_is_left_of_the_attacks(target):
    """All connections are closed, and the memory that they held is free."""

    def sockets():
        workers = psutil.Process(target.server.process.pid).children()
        return sum(len(worker.net_connections()) for worker in workers)

    wait_until(lambda: sockets() <= 2 * len(target.server.workers))
    traceback = target.server.log.partition("Traceback")[2][:3000]
    assert not traceback
    assert target.predict().json()["class_name"] == "red_thing"
