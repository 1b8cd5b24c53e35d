import pytest

from predictor.server.reception import MAX_HEAD, Reception

MAX_BODY = 100_000
POST = b"POST /predict HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    POST + b"Content-Length: 5\r\n\r\nhello",
    POST + b"content-length:5 \r\n\r\n\r\n\r\n0",
    POST + b"Content-Length: 0\r\n\r\n",
    CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
    CHUNKED + b"5;name=value\r\nhello\r\nA\r\n0\r\n\r\n12345\r\n0\r\n\r\n",
    CHUNKED + b"5\r\nhello\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n",
]


def receive(data, max_body=MAX_BODY, guarded=False):
    reception = Reception(max_body, deadline=0.0, guarded=guarded)
    reception.feed(data)
    return reception


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("request_", WHOLE)
def test_a_request_is_whole_with_its_last_byte(request_, step):
    reception, end = receive(b""), len(request_) - 1
    for offset in range(0, end, step):
        reception.feed(request_[offset : min(offset + step, end)])
        assert not reception.done
    reception.feed(request_[-1:])
    assert reception.done
    assert reception.whole
    assert bytes(reception.buffer) == request_


@pytest.mark.parametrize(
    "data",
    [
        POST + b"Content-Length: 100001\r\n\r\n",
        CHUNKED + b"no number\r\n",
        CHUNKED + (b"fff\r\n" + b"x" * 0xFFF + b"\r\n") * 60,
        b"x" * (MAX_HEAD + 1),
    ],
    ids=["large body", "malformed chunk", "large body in chunks", "large head"],
)
def test_a_request_to_be_refused_is_not_received_to_its_end(data):
    reception = receive(data)
    assert reception.done
    assert not reception.whole


@pytest.mark.parametrize(("head", "waits"), [(b"", False), (b"AUTHORIZATION: Bearer x\r\n", True)])
def test_a_body_without_a_required_token_is_not_received(head, waits):
    reception = receive(POST + head + b"Content-Length: 5\r\n\r\n", guarded=True)
    assert reception.done is not waits


@pytest.mark.parametrize(
    "data",
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
def test_a_request_whose_end_is_unclear_is_400_without_a_thread(data):
    """For some of them gunicorn's parser sees an end, and would wait for it with a thread."""
    assert receive(data).refusal.status == 400


@pytest.mark.parametrize(("size", "status"), [(1, 413), (16, 413), (100, None), (5000, None)])
def test_many_tiny_chunks_are_413(size, status):
    chunk = b"%x\r\n" % size + b"x" * size + b"\r\n"
    refusal = receive(CHUNKED + chunk * (200_000 // size), max_body=10**6).refusal
    assert (refusal and refusal.status) == status


def test_bytes_after_a_request_stay_in_the_buffer():
    reception = receive(WHOLE[1] + b"GET /healthz")
    assert reception.whole
    assert bytes(reception.buffer) == WHOLE[1] + b"GET /healthz"


@pytest.mark.parametrize(("length", "accepted"), [(5, True), (100_001, False)])
def test_100_continue_is_for_bodies_within_the_limit(length, accepted):
    reception = receive(POST + b"Expect: 100-Continue\r\nContent-Length: %d\r\n\r\n" % length)
    assert reception.expects_continue is accepted
    assert reception.done is not accepted
    assert b"xpect" not in reception.buffer


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (POST, ("POST", "/predict")),
        (b"PUT /v2/models/a/infer?x=1 HTTP/1.1\r\n", ("PUT", "/v2/models/a/infer?x=1")),
        (b"", ("GET", "/")),
        (b"\x16\x03\x01\x02\x00", ("GET", "/")),
    ],
)
def test_method_and_path_are_known_before_the_request_is_whole(data, found):
    assert receive(data).method_and_path == found
