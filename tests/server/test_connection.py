"""A real gunicorn with slow and malformed clients: they cost a buffer, never a thread."""

import resource
import select
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from time import monotonic

import psutil
import pytest
import requests
from PIL import Image

from pictures import encode, picture
from running_server import ToyServer
from waiting import wait_until

HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: a\r\n"
BUNDLE = b"GET /docs/swagger-ui/swagger-ui-bundle.js HTTP/1.1\r\nHost: a\r\n%s\r\n"


@pytest.fixture(scope="module")
def server():
    """Eight uploads of 8 MB fit into its memory at once."""
    limits = {"max_in_flight": 8, "max_upload_bytes": 50_000_000, "receive_timeout_s": 600}
    running = ToyServer(**limits)
    yield running.wait_until_ready()
    running.close()


def answers(connection, count=1):
    """Read responses from a connection; returns them as text."""
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


def begin_to_send(connection):
    """Send the head of a request, and return when the server has read it."""
    connection.sendall(POST + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n")
    assert connection.recv(99).startswith(b"HTTP/1.1 100 ")
    return connection


def can_be_read(connections):
    """Return those that have been answered or ended."""
    return select.select(connections, [], [], 0)[0]


def post(photo, extra=b""):
    return POST + extra + b"Content-Length: %d\r\n\r\n" % len(photo) + photo


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"POST /predict HT",
        POST + b"Content-Length: 5000\r\n\r\n\xff\xd8",
        POST + b"Transfer-Encoding: chunked\r\n\r\n5000\r\n\xff\xd8",
    ],
    ids=["silent", "in the head", "in the body", "in a chunk"],
)
def test_200_clients_that_never_finish_hold_no_thread(server, connect, coffee, beginning):
    """The server has 20 threads."""
    slow = [connect(server, beginning) for _ in range(200)]
    with ThreadPoolExecutor(4) as clients:
        found = list(clients.map(lambda _: server.predict(coffee), range(8)))
    assert {r.json()["class_name"] for r in found} == {"red_thing"}
    assert server.get("/readyz").status_code == 200
    for connection in slow:
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):  # it is still open
            connection.recv(1)


def test_a_slow_client_is_answered_when_it_has_sent_all(server, connect, coffee):
    request = post(coffee)
    connection = connect(server, request[:30])
    for offset in range(30, len(request), 20_000):
        assert server.get("/healthz").ok  # other requests are answered in between
        connection.sendall(request[offset : offset + 20_000])
    assert '"red_thing"' in answers(connection)


def test_pipelined_requests_are_answered_in_order(server, connect, coffee):
    probe = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    connection = connect(server, probe + post(coffee) + probe[:10], probe[10:] + post(coffee))
    bodies = [line for line in answers(connection, 4).splitlines() if line.startswith("{")]
    assert bodies[0] == bodies[2] == '{"status": "alive"}'
    assert bodies[1] == bodies[3]
    assert "red_thing" in bodies[1]


@pytest.mark.parametrize("lines", [1, 2])
def test_100_continue_is_sent_once(server, connect, coffee, lines):
    request = post(coffee, lines * b"Expect: 100-Continue\r\n")
    head = request.index(b"\r\n\r\n") + 4
    connection = connect(server, request[:head])
    assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(request[head:])
    text = answers(connection)
    assert text.startswith("HTTP/1.1 200")
    assert "100 Continue" not in text


def test_curl_does_not_wait_a_second_for_100_continue(server, tmp_path):
    photo = Image.effect_noise((1500, 1500), 100)
    photo.save(tmp_path / "large.png")
    assert (tmp_path / "large.png").stat().st_size > 2**20  # from here on curl asks first
    command = ["curl", "-sv", "-F", f"file=@{tmp_path}/large.png", f"{server.url}/predict"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "class_id" in done.stdout
    assert "Done waiting for 100-continue" not in done.stderr


def test_clients_that_disconnect_early_leave_no_socket_open(server, connect):
    """Counted by the clients' own ports: sockets of other tests may be closed meanwhile."""
    opened = [connect(server, POST + b"Content-Length: 9\r\n\r\n12") for _ in range(50)]
    ports = {connection.getsockname()[1] for connection in opened}

    def held():
        connections = psutil.Process(server.worker).net_connections("tcp")
        return ports & {each.raddr.port for each in connections if each.raddr}

    wait_until(lambda: held() == ports)
    for connection in opened:
        connection.close()
    wait_until(lambda: not held())


def test_clients_that_never_close_do_not_block_the_event_loop(server, connect, coffee):
    """gunicorn itself would wait two seconds for each of them in its event loop."""
    last = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    opened = [connect(server, last) for _ in range(100)]
    began = monotonic()
    assert server.predict(coffee).ok
    for connection in opened:
        text = answers(connection)
        assert text.startswith("HTTP/1.1 200")
        assert connection.recv(1) == b""
    assert monotonic() - began < 100  # half of what gunicorn would take
    wait_until(lambda: server.get("/healthz").ok)


def test_memory_is_returned_after_a_rush_while_others_send_photos(server):
    """24 photos of 48 MB of pixels each, from 8 clients."""
    large = encode(Image.effect_noise((4000, 4000), 60).convert("RGB"), "JPEG")

    def resident_mb():
        return psutil.Process(server.worker).memory_info().rss / 1e6

    server.predict(large)
    before = resident_mb()
    with ThreadPoolExecutor(8) as clients:
        found = list(clients.map(lambda _: server.predict(large), range(24)))
    assert {response.status_code for response in found} == {200}
    wait_until(lambda: server.predict(picture()).ok and resident_mb() < before + 60)


def does_not_read(server, *sent):
    """A client that sends requests and never reads."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.connect(server.address)
    for data in sent:
        client.sendall(data)
    return client


def test_bodies_that_never_end_are_returned_at_rest(start_toy, connect):
    limits = {"max_in_flight": 16, "max_upload_bytes": 50_000_000, "receive_timeout_s": 600}
    server = start_toy(**limits).wait_until_ready()

    def resident_mb():
        return psutil.Process(server.worker).memory_info().rss / 1e6

    before = resident_mb()
    head = POST + b"Content-Length: 20000000\r\n\r\n"
    opened = [connect(server, head + bytes(19_000_000)) for _ in range(6)]
    wait_until(lambda: resident_mb() > before + 60)
    for connection in opened:
        connection.close()
    wait_until(lambda: resident_mb() < before + 30)


@pytest.mark.parametrize("path", ["/nothing", "/v2/models/dog/infer", "/predictions/dog"])
def test_a_refused_upload_leaves_the_connection_usable(server, coffee, path):
    photo = coffee + bytes(500_000)  # more than gunicorn itself would skip
    with closing(HTTPConnection(server.url.removeprefix("http://"), timeout=60)) as connection:
        statuses = []
        for target in (path, "/predict"):
            connection.request("POST", target, body=photo)
            response = connection.getresponse()
            statuses.append(response.status)
            response.read()
    assert statuses == [404, 200]


# Refusals of the event loop


def test_a_request_that_does_not_arrive_in_time_is_408(start_toy, connect):
    server = start_toy(receive_timeout_s=0.5).wait_until_ready()
    kept = connect(server, HEALTHZ)
    assert kept.recv(4096).startswith(b"HTTP/1.1 200 ")
    silent, slow = connect(server), connect(server, POST)
    text = answers(slow)
    assert text.startswith("HTTP/1.1 408 REQUEST TIMEOUT\r\n")
    assert "\nRetry-After: 5\r\n" in text
    assert '"code": "request-timeout"' in text
    assert (slow.recv(1), silent.recv(1)) == (b"", b"")
    kept.sendall(HEALTHZ)  # between two requests, a connection may be idle for longer
    assert kept.recv(4096).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (b"/predictions/vgg16", '"type": "RequestTimeoutException"'),
        (b"/v2/models/vgg16/infer?", '{"error": "The request did not arrive in time."}'),
    ],
)
def test_a_refusal_has_the_shape_of_its_protocol(start_toy, connect, path, body):
    server = start_toy(receive_timeout_s=0.5).wait_until_ready()
    text = answers(connect(server, POST.replace(b"/predict", path)))
    assert text.startswith("HTTP/1.1 408 REQUEST TIMEOUT\r\n")
    assert "\nContent-Type: application/json\r\n" in text
    assert body in text


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "400 BAD REQUEST"),
        (
            b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 2000,
            "413 REQUEST ENTITY TOO LARGE",
        ),
    ],
)
def test_a_refusal_that_retrying_cannot_mend_has_no_retry_after(server, connect, head, status):
    text = answers(connect(server, POST + head))
    assert text.startswith(f"HTTP/1.1 {status}\r\n")
    assert "Content-Type: application/problem+json" in text
    assert "Retry-After" not in text


def test_bodies_that_arrive_together_share_a_limit(start_toy, connect, coffee):
    """The limit is 8 MiB."""
    server = start_toy(max_upload_bytes=5_000_000, max_in_flight=8).wait_until_ready()
    body = POST + b"Content-Length: 5000000\r\n\r\n" + b"x" * 4_999_000
    both = {connect(server, body), connect(server, body)}
    [refused], _, _ = select.select(both, [], [], 60)
    text = answers(refused)
    assert text.startswith("HTTP/1.1 408 ")
    assert '"code": "evicted"' in text
    [other] = both - {refused}
    other.sendall(b"x" * 1000)
    assert answers(other).startswith("HTTP/1.1 415 ")
    assert server.predict(coffee).ok


def test_one_body_of_the_largest_size_always_fits(start_toy, connect):
    server = start_toy(max_upload_bytes=200_000, max_in_flight=1).wait_until_ready()
    body = POST + b"Content-Length: 200000\r\n\r\n" + b"x" * 200_000
    assert answers(connect(server, body)).startswith("HTTP/1.1 415 ")


def test_the_oldest_receptions_make_room_for_new_connections(start_toy, connect, coffee):
    server = start_toy("--worker-connections", "100", "--threads", "8").wait_until_ready()
    slow = [begin_to_send(connect(server)) for _ in range(90)]
    new = [connect(server, POST) for _ in range(30)]  # so few that each end gets an answer
    assert server.predict(coffee).json()["class_name"] == "red_thing"
    ended = can_be_read([*slow, *new])
    assert {answers(one)[:13] for one in ended} == {"HTTP/1.1 408 "}
    assert ended == slow[: len(ended)]


def test_clients_that_take_all_files_make_room_for_new_ones(start_toy, connect, coffee):
    server = start_toy("--threads", "8").wait_until_ready()
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (256, 256))
    psutil.Process(server.worker).kill()  # its replacement has the limit
    wait_until(lambda: server.loaded == 2)
    slow = [begin_to_send(connect(server)) for _ in range(100)]
    slow += [connect(server, POST) for _ in range(500)]
    assert server.predict(coffee).json()["class_name"] == "red_thing"
    assert answers(slow[0]).startswith("HTTP/1.1 408 ")
    for sentence in ("Traceback", "A connection cannot be accepted"):
        assert sentence not in server.log


def test_sigterm_does_not_wait_for_clients_that_are_silent_or_do_not_read(start_toy, connect):
    server = start_toy(receive_timeout_s=600).wait_until_ready()
    began = monotonic()
    assert connect(server)
    with does_not_read(server, (BUNDLE % b"") * 6):
        assert requests.get(f"{server.url}/healthz", timeout=60).ok
        assert server.stop() == 0
    assert monotonic() - began < 30  # less than it would wait for a request in progress
