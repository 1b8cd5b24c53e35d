import pytest
from gunicorn.config import Config

from predictor.errors import BadRequest, HeadTooLarge, TargetTooLong, TooLarge
from predictor.server import reception as module
from predictor.server.reception import CHUNK_LINE, MAX_HEAD, Reception

MAX_BODY = 100_000
POST = b"POST /predict HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE = {
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n": b"",
    POST + b"Content-Length: 5\r\n\r\nhello": b"hello",
    POST + b"content-length:5 \r\n\r\n\r\n\r\n0": b"\r\n\r\n0",
    POST + b"Content-Length: 0\r\n\r\n": b"",
    POST + b"Content-Length: 0000000000000000000005\r\n\r\nhello": b"hello",
    CHUNKED + b"5\r\nhello\r\n0\r\n\r\n": b"hello",
    CHUNKED + b"5;name=value\r\nhello\r\nA\r\n0\r\n\r\n12345\r\n0\r\n\r\n": b"hello0\r\n\r\n12345",
    CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum: x\r\nOther: y\r\n\r\n": b"hello",
}


def receive(data, max_body=MAX_BODY):
    """A reception, and what it left in the buffer."""
    reception, buffer = Reception(Config(), ("127.0.0.1", 1), 1, max_body), bytearray(data)
    reception.take(buffer)
    return reception, buffer


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("request_", WHOLE)
def test_a_request_is_whole_with_its_last_byte(request_, step):
    (reception, buffer), end = receive(b""), len(request_) - 1
    for offset in range(0, end, step):
        buffer += request_[offset : min(offset + step, end)]
        reception.take(buffer)
        assert not reception.whole
    buffer += request_[-1:] + b"GET /next"
    reception.take(buffer)
    assert reception.whole
    assert reception.body == WHOLE[request_]
    assert buffer == b"GET /next"


class CountedPattern:
    """Stands in for CHUNK_LINE, and counts how often it is used."""

    uses = 0

    def fullmatch(self, *args):
        self.uses += 1
        return CHUNK_LINE.fullmatch(*args)


def test_a_chunk_that_arrives_in_bytes_has_its_line_parsed_twice(monkeypatch):
    pattern = CountedPattern()
    monkeypatch.setattr(module, "CHUNK_LINE", pattern)
    reception, buffer = receive(CHUNKED)
    for byte in b"64;name=value\r\n" + b"x" * 100 + b"\r\n":
        buffer.append(byte)
        reception.take(buffer)
    assert not buffer  # the chunk was taken
    assert pattern.uses == 2


def test_a_lowered_limit_refuses_a_chunk_before_it_is_complete():
    reception, buffer = receive(CHUNKED + b"5000\r\n")
    reception.max_body = 1000
    with pytest.raises(TooLarge):
        reception.take(buffer + b"x" * 1000)


def test_the_head_is_parsed_before_the_body_arrives():
    reception, _ = receive(POST + b"Content-Length: 5\r\n\r\n")
    assert (reception.request.method, reception.request.path) == ("POST", "/predict")
    assert not reception.whole


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (POST + b"X: " + b"x" * MAX_HEAD, HeadTooLarge),
        (POST + b"X: " + b"x" * 9000 + b"\r\n\r\n", HeadTooLarge),
        (POST + b"X: y\r\n" * 101 + b"\r\n", HeadTooLarge),
        (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\n\r\n", TargetTooLong),
        (CHUNKED + b"fffff\r\n", TooLarge),
        (CHUNKED + (b"fff\r\n" + b"x" * 0xFFF + b"\r\n") * 60, TooLarge),
    ],
    ids=["endless head", "long header", "many headers", "long URL", "large chunk", "many chunks"],
)
def test_a_request_over_a_limit_is_refused_as_it_arrives(data, error):
    with pytest.raises(error):
        receive(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"GET /\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        POST + b"Content-Length: +5\r\n\r\n",
        POST + b"Transfer-Encoding: identity\r\n\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        POST + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
        CHUNKED + b"no number\r\n",
        CHUNKED + b"+5\r\nhello\r\n",
        CHUNKED + b"0x5\r\nhello\r\n",
        CHUNKED + b"5\r\nhelloX\r\n0\r\n\r\n",
        CHUNKED + b"1" * 9000,
        CHUNKED + b"5;" + b"a" * 9000,
        CHUNKED + b"5\r\nhello\r\n5;" + b"a" * 9000,
        CHUNKED + b"5\r\nhello\r\n0\r\nX: " + b"a" * 9000,
        CHUNKED + b'5;a="\r\nhello\r\n0\r\n\r\n',
        CHUNKED + b"0\r\nHost: b\r\n\r\n",
    ],
)
def test_a_request_whose_end_is_unclear_is_refused_as_it_arrives(data):
    with pytest.raises(BadRequest):
        receive(data)


@pytest.mark.parametrize(("length", "refused"), [(90, False), (900, True)])
def test_many_chunk_extensions_are_413(length, refused):
    """Amazon's clients sign each chunk, in 85 bytes."""
    chunks = (b"400;" + b"a;" * (length // 2 - 1) + b"b\r\n" + bytes(1024) + b"\r\n") * 500
    if refused:
        with pytest.raises(TooLarge):
            receive(CHUNKED + chunks, max_body=10**6)
    else:
        assert not receive(CHUNKED + chunks, max_body=10**6)[0].whole


@pytest.mark.parametrize(("size", "refused"), [(1, True), (16, True), (100, False), (5000, False)])
def test_many_tiny_chunks_are_413(size, refused):
    chunks = (b"%x\r\n" % size + b"x" * size + b"\r\n") * (200_000 // size)
    if refused:
        with pytest.raises(TooLarge):
            receive(CHUNKED + chunks, max_body=10**6)
    else:
        assert not receive(CHUNKED + chunks, max_body=10**6)[0].whole


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (POST, ("POST", "/predict")),
        (b"PUT /v2/models/a/infer?x=1 HTTP/1.1\r\n", ("PUT", "/v2/models/a/infer")),
        (b"", ("GET", "/")),
        (b"\x16\x03\x01\x02\x00", ("GET", "/")),
    ],
)
def test_method_and_path_of_an_incomplete_head_are_known(data, found):
    reception, buffer = receive(data)
    request = reception.placeholder(buffer)
    assert (request.method, request.path) == found
