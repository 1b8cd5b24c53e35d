"""Requests that a proxy and the server could read differently, and malformed forms."""

import gzip
import socket

import pytest
import requests

from pictures import picture
from predictor.server.departure import PROBE
from running_server import ToyServer

PHOTO = picture()
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
PART = b'Content-Disposition: form-data; name="file"; filename="a.png"\r\n'


@pytest.fixture(scope="module")
def server():
    running = ToyServer("--access-logfile", "-").wait_until_ready()
    yield running
    running.close()


@pytest.fixture
def send(server):
    """Send bytes; returns all that the server sends until it closes the connection."""

    def exchange(data):
        with socket.create_connection(server.address, timeout=60) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: connection.recv(65536), b""))
            return received.removeprefix(PROBE)

    return exchange


AMBIGUOUS = {
    "two lengths": b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "the same length twice": b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": b"Content-Length: 3, 3\r\n\r\nabc",
    "a length with a sign": b"Content-Length: +3\r\n\r\nabc",
    "a negative length": b"Content-Length: -3\r\n\r\nabc",
    "a length in hex": b"Content-Length: 0x3\r\n\r\nabc",
    "a length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks not last": b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunks twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown encoding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a folded header": b"Content-Length: 0\r\nX: a\r\n b\r\n\r\n",
    "a space before the colon": b"Content-Length : 3\r\n\r\nabc",
    "a header without a name": b": a\r\nContent-Length: 3\r\n\r\nabc",
    "a bare line feed in a header": b"X: a\nContent-Length: 0\r\n\r\n",
    "a bare carriage return in a header": b"X: a\rY: b\r\nContent-Length: 0\r\n\r\n",
    "a zero byte in a header": b"X: a\0b\r\nContent-Length: 0\r\n\r\n",
    "two hosts": b"Host: y\r\nContent-Length: 0\r\n\r\n",
    "10,000 headers": b"X: a\r\n" * 10_000 + b"\r\n",
    "a header of a megabyte": b"X: " + b"a" * 2**20 + b"\r\n\r\n",
    "chunks with a signed size": b"Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
    "chunks that end too late": b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "chunks with bare line feeds": b"Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_an_ambiguous_request_hides_no_second_one(server, send, case):
    answer = send(HEAD + AMBIGUOUS[case] + SMUGGLED)
    status = int(answer.split()[1])
    assert 400 <= status < 500 or status == 501, answer[:200]
    assert answer.count(b"HTTP/1.1 ") == 1
    assert "/smuggled" not in server.log


@pytest.mark.parametrize(
    "line",
    [
        b"POST /predict HTTP/9.9",
        b"POST /predict",
        b"post\0 /predict HTTP/1.1",
        b"POST /predict\n HTTP/1.1",
        b"POST /" + b"a" * 100_000 + b" HTTP/1.1",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    ],
    ids=["version", "no version", "zero byte", "line feed", "100 kB", "TLS"],
)
def test_a_malformed_request_line_is_refused(send, line):
    answer = send(line + b"\r\nHost: x\r\n\r\n")
    assert answer == b"" or 400 <= int(answer.split()[1]) < 600


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", "deflate", "br", "gzip, gzip"])
def test_a_compressed_body_is_415_and_never_unpacked(server, encoding):
    bomb = gzip.compress(bytes(10_000_000))
    response = requests.post(
        f"{server.url}/predict", data=bomb, headers={"Content-Encoding": encoding}, timeout=60
    )
    assert response.status_code == 415
    assert "Send the images as they are" in response.json()["detail"]


def multipart(boundary, *parts):
    line = b"--" + boundary
    body = b"".join(line + b"\r\n" + part + b"\r\n" for part in parts) + line + b"--\r\n"
    return b'Content-Type: multipart/form-data; boundary="%b"\r\n' % boundary, body


INNER = b"\r\n".join(multipart(b"inner", PART + b"\r\n" + PHOTO))
MALFORMED = {
    "10,000 parts": (multipart(b"b", *[PART + b"\r\nx"] * 10_000), 413),
    "10,000 fields": (
        multipart(b"b", *[b'Content-Disposition: form-data; name="x"\r\n\r\n1'] * 10_000),
        413,
    ),
    "a part with a header of a megabyte": (
        multipart(b"b", PART + b"X: " + b"a" * 2**20 + b"\r\n\r\n" + PHOTO),
        (200, 400, 413),
    ),
    "a part with 100,000 headers": (
        multipart(b"b", PART + b"X: a\r\n" * 100_000 + b"\r\n" + PHOTO),
        (200, 400, 413),
    ),
    "a form within a form": (multipart(b"b", PART + INNER), 415),
    "a part without a name": (multipart(b"b", PART.replace(b"name", b"nome", 1) + b"\r\n1"), 415),
    "a boundary of nothing": (multipart(b"", PART + b"\r\n" + PHOTO), 400),
    "a boundary of 5,000 letters": (multipart(b"b" * 5000, PART + b"\r\n" + PHOTO), (200, 400)),
    "a boundary everywhere": (
        multipart(b"b", PART + b"\r\n" + b"\r\n--b" * 200_000),
        (400, 413, 415),
    ),
    "no end": ((multipart(b"b")[0], b"--b\r\n" + PART + b"\r\n" + PHOTO), (200, 400, 422)),
    "nothing at all": ((multipart(b"b")[0], b""), 400),
    "a name of a megabyte": (
        multipart(b"b", b'Content-Disposition: form-data; name="' + b"a" * 2**20 + b'"\r\n\r\n1'),
        (400, 413),
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_form_gets_a_short_answer(send, case):
    (kind, body), statuses = MALFORMED[case]
    length = b"Content-Length: %d\r\n" % len(body)
    answer = send(HEAD + kind + length + b"Connection: close\r\n\r\n" + body)
    assert int(answer.split()[1]) in (statuses if isinstance(statuses, tuple) else (statuses,))
    assert len(answer) < 3000


def test_after_all_that_a_good_photo_is_classified(server):
    assert server.predict(PHOTO).status_code == 200
    assert "Traceback" not in server.log
