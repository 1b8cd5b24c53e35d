"""Slow clients cost a buffer, never a thread."""

import select
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from time import monotonic

import psutil
import pytest
import requests
from PIL import Image
from skimage import data

from pictures import encode
from predictor.server.worker import MAX_HEAD, Reception
from running_server import Server
from waiting import wait_until

MAX_BODY = 100_000
POST = b"POST /predict HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def reception():
    return Reception(MAX_BODY, deadline=0.0)


WHOLE = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    POST + b"Content-Length: 5\r\n\r\nhello",
    POST + b"content-length:5 \r\n\r\n\r\n\r\n0",
    POST + b"Content-Length: 0\r\n\r\n",
    CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
    CHUNKED + b"5;name=value\r\nhello\r\nA\r\n0\r\n\r\n12345\r\n0\r\n\r\n",
    CHUNKED + b"5\r\nhello\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n",
]


@pytest.mark.parametrize("request_", WHOLE)
def test_a_request_is_whole_with_its_last_byte_however_it_comes(request_):
    for step in (1, 2, 3, 7, len(request_) - 1):
        received = reception()
        for at in range(0, len(request_) - 1, step):
            received.feed(request_[at : min(at + step, len(request_) - 1)])
            assert not received.done
        received.feed(request_[-1:])
        assert received.done
        assert received.whole
        assert bytes(received.buffer) == request_


@pytest.mark.parametrize(
    "hopeless",
    [
        POST + b"Content-Length: 100001\r\n\r\n",  # larger than accepted
        CHUNKED + b"no number\r\n",
        CHUNKED + (b"fff\r\n" + b"x" * 0xFFF + b"\r\n") * 60,
        b"x" * (MAX_HEAD + 1),
    ],
)
def test_what_will_be_refused_is_not_waited_for(hopeless):
    received = reception()
    received.feed(hopeless)
    assert received.done
    assert not received.whole


@pytest.mark.parametrize(("head", "waits"), [(b"", False), (b"AUTHORIZATION: Bearer x\r\n", True)])
def test_where_tokens_are_wanted_nobody_without_one_is_waited_for(head, waits):
    received = Reception(MAX_BODY, deadline=0.0, guarded=True)
    received.feed(POST + head + b"Content-Length: 5\r\n\r\n")
    assert received.done is not waits


@pytest.mark.parametrize(
    "unclear",
    [
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        POST + b"Content-Length: 0000000000000000000100\r\n\r\n",
        POST + b"Content-Length: +5\r\n\r\n",
        POST + b"Transfer-Encoding: identity\r\n\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
        CHUNKED + b"1" * 2000,
        CHUNKED + b"5;" + b"a" * 2000,
        CHUNKED + b"5\r\nhello\r\n5;" + b"a" * 2000,
    ],
)
def test_where_it_is_unclear_how_it_ends_no_thread_is_given_to_it(unclear):
    """gunicorn's parser would find an end for some, and wait for it with a thread."""
    received = reception()
    received.feed(unclear)
    assert received.refusal == 400


@pytest.mark.parametrize(("size", "refused"), [(1, True), (16, True), (100, False), (5000, False)])
def test_a_body_in_crumbs_is_refused_before_it_costs_seconds(size, refused):
    received = Reception(10**6, deadline=0.0)
    chunk = b"%x\r\n" % size + b"x" * size + b"\r\n"
    received.feed(CHUNKED + chunk * (200_000 // size))
    assert (received.refusal is not None) is refused


def test_what_follows_a_request_stays_with_it():
    received = reception()
    received.feed(WHOLE[1] + b"GET /healthz")
    assert received.whole
    assert bytes(received.buffer) == WHOLE[1] + b"GET /healthz"


@pytest.mark.parametrize(("length", "wanted"), [(5, True), (100_001, False)])
def test_a_client_that_asks_is_told_to_go_on_unless_it_sends_too_much(length, wanted):
    received = reception()
    received.feed(POST + b"Expect: 100-Continue\r\nContent-Length: %d\r\n\r\n" % length)
    assert received.expects_continue is wanted
    assert received.done is not wanted
    assert b"xpect" not in received.buffer


@pytest.fixture(scope="module")
def server():
    running = Server(model="efficientnet_lite0", max_in_flight=8, receive_timeout_s=600)
    yield running.wait_until_ready()
    running.close()


@pytest.fixture
def connect():
    """Open connections to a server; closed after the test."""
    with ExitStack() as stack:

        def run(server, *sent):
            port = int(server.url.rpartition(":")[2])
            opened = stack.enter_context(socket.create_connection(("127.0.0.1", port), 60))
            for part in sent:
                opened.sendall(part)
            return opened

        yield run


@pytest.fixture(scope="module")
def coffee():
    return encode(Image.fromarray(data.coffee()), "JPEG")


def answers(connection, count=1):
    """That many answers off a connection, as text."""
    text = ""
    with connection.makefile("rb") as file:
        for _ in range(count):
            length = 0
            while (line := file.readline().decode()).strip():
                text += line
                if line.lower().startswith("content-length:"):
                    length = int(line.partition(":")[2])
            text += "\n" + file.read(length).decode()
    return text


def raw(photo, extra=b""):
    return POST + extra + b"Content-Length: %d\r\n\r\n" % len(photo) + photo


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"POST /predict HT",
        POST + b"Content-Length: 5000\r\n\r\n\xff\xd8",
        CHUNKED + b"5000\r\n\xff\xd8",
    ],
    ids=["silent", "in the head", "in the body", "in a chunk"],
)
def test_two_hundred_clients_that_never_finish_hold_up_nobody(server, connect, coffee, beginning):
    """There are 16 threads."""
    slow = [connect(server, beginning) for _ in range(200)]
    with ThreadPoolExecutor(4) as clients:
        found = list(clients.map(lambda _: server.predict(coffee), range(8)))
    assert {r.json()["class_name"] for r in found} == {"espresso"}
    assert server.get("/readyz").status_code == 200
    for one in slow:
        one.setblocking(False)
        with pytest.raises(BlockingIOError):  # none was closed
            one.recv(1)


def test_a_slow_client_is_answered_when_it_has_sent_all(server, connect, coffee):
    request = raw(coffee)
    connection = connect(server, request[:30])
    for at in range(30, len(request), 20_000):
        assert server.get("/healthz").ok  # something else comes in between
        connection.sendall(request[at : at + 20_000])
    assert '"espresso"' in answers(connection)


def test_requests_sent_without_waiting_for_answers_are_answered_in_order(server, connect, coffee):
    probe = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    connection = connect(server, probe + raw(coffee) + probe[:10], probe[10:] + raw(coffee))
    bodies = [line for line in answers(connection, 4).splitlines() if line.startswith("{")]
    assert bodies[0] == bodies[2] == '{"status": "alive"}'
    assert bodies[1] == bodies[3]
    assert "espresso" in bodies[1]


def test_a_large_upload_is_told_to_go_on_once(server, connect, coffee):
    request = raw(coffee, b"Expect: 100-continue\r\n")
    head = request.index(b"\r\n\r\n") + 4
    connection = connect(server, request[:head])
    assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(request[head:])
    text = answers(connection)
    assert text.startswith("HTTP/1.1 200")
    assert "100 Continue" not in text


def test_curl_sends_a_large_photo_without_its_second_of_waiting(server, tmp_path):
    photo = Image.effect_noise((1500, 1500), 100)
    photo.save(tmp_path / "large.png")
    assert (tmp_path / "large.png").stat().st_size > 2**20  # from here curl asks before it sends
    command = ["curl", "-sv", "-F", f"file=@{tmp_path}/large.png", f"{server.url}/predict"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "class_id" in done.stdout
    assert "Done waiting for 100-continue" not in done.stderr


def test_who_hangs_up_before_the_end_leaves_nothing_behind(server, connect):
    worker = psutil.Process(server.worker)
    before = worker.num_fds()
    opened = [connect(server, POST + b"Content-Length: 9\r\n\r\n12") for _ in range(50)]
    wait_until(lambda: worker.num_fds() >= before + 50)
    for one in opened:
        one.close()
    wait_until(lambda: worker.num_fds() <= before)


def test_clients_that_never_close_hold_up_nobody(server, connect, coffee):
    """gunicorn itself waits for each of them, two seconds in the loop that serves all."""
    last = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    opened = [connect(server, last) for _ in range(100)]
    begun = monotonic()
    assert server.predict(coffee).ok
    for one in opened:
        text = answers(one)
        assert text.startswith("HTTP/1.1 200")
        assert one.recv(1) == b""
    assert monotonic() - begun < 100  # half of what it would take one after the other
    wait_until(lambda: server.get("/healthz").ok)


def test_memory_that_a_rush_took_is_given_back(server):
    """Four photos of 48 MB of pixels each, and some more besides, in many threads."""
    large = encode(Image.effect_noise((4000, 4000), 60).convert("RGB"), "JPEG")

    def resident():
        return psutil.Process(server.worker).memory_info().rss / 1e6

    server.predict(large)
    before = resident()
    with ThreadPoolExecutor(8) as clients:
        assert all(r.ok for r in clients.map(lambda _: server.predict(large), range(24)))
    wait_until(lambda: resident() < before + 60)


@pytest.mark.parametrize("path", ["/nothing", "/v2/models/dog/infer", "/predictions/dog"])
def test_after_a_refusal_that_read_no_body_the_connection_serves_on(server, coffee, path):
    photo = coffee + bytes(500_000)  # more than gunicorn would skip by itself
    with closing(HTTPConnection(server.url.removeprefix("http://"), timeout=60)) as connection:
        statuses = []
        for asked in (path, "/predict"):
            connection.request("POST", asked, body=photo)
            answer = connection.getresponse()
            statuses.append(answer.status)
            answer.read()
    assert statuses == [404, 200]


@pytest.fixture
def start():
    started = []

    def run(*options, **settings):
        started.append(Server(*options, model="efficientnet_lite0", **settings))
        return started[-1].wait_until_ready()

    yield run
    for one in started:
        one.close()


def test_what_does_not_arrive_in_time_is_refused(start, connect):
    server = start(receive_timeout_s=0.5)
    silent, slow = connect(server), connect(server, POST)
    text = answers(slow)
    assert text.startswith("HTTP/1.1 408 Request Timeout\r\n")
    assert '"code": "request-timeout"' in text
    assert (slow.recv(1), silent.recv(1)) == (b"", b"")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (b"/predictions/vgg16", '"type": "RequestTimeoutException"'),
        (b"/v2/models/vgg16/infer?", '{"error": "The request came too slowly."}'),
    ],
)
def test_it_is_refused_in_the_words_of_its_protocol(start, connect, path, words):
    server = start(receive_timeout_s=0.5)
    text = answers(connect(server, POST.replace(b"/predict", path)))
    assert text.startswith("HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\n")
    assert words in text


def test_all_that_arrives_together_has_a_limit(start, connect, coffee):
    server = start(max_receive_bytes=300_000)
    body = POST + b"Content-Length: 200000\r\n\r\n" + b"x" * 199_000
    both = {connect(server, body), connect(server, body)}
    [refused], _, _ = select.select(both, [], [], 60)
    text = answers(refused)
    assert text.startswith("HTTP/1.1 503 ")
    assert "Retry-After:" in text
    [other] = both - {refused}
    other.sendall(b"x" * 1000)
    assert answers(other).startswith("HTTP/1.1 415 ")
    assert server.predict(coffee).ok


def test_the_oldest_make_room_when_there_are_too_many(start, connect, coffee):
    server = start("--worker-connections", "100", "--threads", "8")
    slow = [connect(server, POST) for _ in range(150)]
    assert server.predict(coffee).json()["class_name"] == "espresso"
    assert answers(slow[0]).startswith("HTTP/1.1 408 ")


def test_sigterm_does_not_wait_for_who_says_nothing(start, connect):
    server = start(receive_timeout_s=600)
    begun = monotonic()
    assert connect(server)
    assert requests.get(f"{server.url}/healthz", timeout=60).ok
    assert server.stop() == 0
    assert monotonic() - begun < 30  # which it would wait for a request in work
