"""Bodies with many numbers, or that are compressed, wait to be parsed."""

import contextlib
import gzip
import json
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from conftest import store_of
from leaving import gone
from predictor.engine.call import Call
from predictor.engine.served import MANY, NUMBER_S
from predictor.environ import LEFT
from waiting import wait_until
from web.protocols.v2 import BLUE, b64, image, logits, refused


def test_only_numbers_and_compressed_bodies_wait_to_be_parsed(make_app):
    """Clients that send many numbers in few bytes would make photos wait for seconds."""
    app = make_app(request_timeout_s=0.3)
    client, parsers = app.test_client(), store_of(app).process.parsers
    photo = json.dumps({"inputs": [image([b64(BLUE)])]}).encode()
    pixels = json.dumps({"inputs": [image([0] * 10_002, "UINT8", [1, 3, 8, 8])]}).encode()
    gzipped = {"Content-Encoding": "gzip"}
    with parsers.take(Call()):
        for data in (BLUE, photo):
            assert logits(client.post("/v2/models/toy/infer", data=data)).argmax() == 2
        for request in ({"data": pixels}, {"data": gzip.compress(photo), "headers": gzipped}):
            response = client.post("/v2/models/toy/infer", **request)
            assert "longer than the server allows" in refused(response, 504)
            has_left = {"environ_overrides": {LEFT: gone().left}}
            response = client.post("/v2/models/toy/infer", **request, **has_left)
            assert "closed its connection" in refused(response)


def test_bodies_that_wait_to_be_parsed_leave_slots_to_photos(make_app):
    app = make_app(max_in_flight=4)  # half of them may wait; of more, one of few bytes gives way
    parsers = store_of(app).process.parsers
    pixels = [image([value] * 10_002, "UINT8", [1, 3, 8, 8]) for value in (0, 10, 100)]

    def post(data):
        return app.test_client().post("/v2/models/toy/infer", data=data)

    bodies = [json.dumps({"inputs": [tensor]}).encode() for tensor in pixels]
    with ThreadPoolExecutor() as pool, contextlib.ExitStack() as held:
        held.enter_context(parsers.take(Call()))
        waiting = [pool.submit(post, bodies[1]), pool.submit(post, bodies[2])]
        wait_until(lambda: parsers.waiting == 2)
        assert "2 requests are waiting" in refused(post(bodies[0]), 503)
        assert logits(post(BLUE)).argmax() == 2
        third = pool.submit(post, bodies[2])
        assert "2 requests are waiting" in refused(waiting[0].result(5), 503)
        held.close()
        for answered in (waiting[1], third):
            assert "elements is 10002" in refused(answered.result(5))


def test_a_body_that_was_hardly_sent_is_parsed_after_others(make_app):
    app = make_app()
    parsers = store_of(app).process.parsers
    pixels = image([0] * 30_006, "UINT8", [3, 3, 8, 8])
    body, headers = json.dumps({"inputs": [pixels]}).encode(), {"Content-Encoding": "gzip"}

    def post(data, **options):
        return app.test_client().post("/v2/models/toy/infer", data=data, **options)

    with ThreadPoolExecutor() as pool, contextlib.ExitStack() as held:
        held.enter_context(parsers.take(Call()))
        first = pool.submit(post, gzip.compress(body), headers=headers)
        wait_until(lambda: parsers.waiting == 1)
        second = pool.submit(post, body)
        wait_until(lambda: parsers.waiting == 2)
        small, large = parsers._waiting
        assert small.due > large.due
        held.close()
        for answered in (first, second):
            assert "elements is 30006" in refused(answered.result(5))


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_compressed_photos_do_not_wait_among_very_many_numbers(make_app, encoding, compress):
    """While deflate did not tell its numbers, 55 bodies of them made photos in it wait for 4 s."""
    app = make_app()
    process, headers = store_of(app).process, {"Content-Encoding": encoding}

    def post(body):
        body = compress(json.dumps({"inputs": [body]}).encode())
        return app.test_client().post("/v2/models/toy/infer", data=body, headers=headers)

    large = np.random.default_rng(0).bytes(8_000_000)
    with ThreadPoolExecutor() as pool:
        with process.large_parsers.take(Call()):
            numbers = pool.submit(post, image([0] * (MANY + 1), "UINT8", [1, 3, 8, 8]))
            text = pool.submit(post, image([b64(large)]))
            wait_until(lambda: process.large_parsers.waiting == 2)
            assert logits(post(image([b64(BLUE + bytes(600_000))]))).argmax() == 2
        assert "elements is" in refused(numbers.result(5))
        refused(text.result(5), 415)


def test_bodies_of_very_many_numbers_wait_by_what_they_take(make_app):
    """22 bodies of 1 MB of gzip, which are 20 MB of numbers, made photos in gzip wait for 30 s."""
    app = make_app()
    parsers, gzipped = store_of(app).process.large_parsers, {"Content-Encoding": "gzip"}
    photo = gzip.compress(json.dumps({"inputs": [image([b64(BLUE)])]}).encode())
    body = json.dumps({"inputs": [image([0] * (MANY + 1), "UINT8", [3, 3, 8, 8])]}).encode()
    parsers._most_s = 2 * MANY * NUMBER_S

    def post(data, headers=gzipped):
        return app.test_client().post("/v2/models/toy/infer", data=data, headers=headers)

    with ThreadPoolExecutor() as pool:
        with parsers.take(Call()):
            waiting = [pool.submit(post, gzip.compress(body)), pool.submit(post, body, {})]
            wait_until(lambda: parsers.waiting == 2)
            assert logits(post(photo)).argmax() == 2
            # The place of one that has sent more bytes for its numbers is kept.
            assert "2 requests are waiting" in refused(post(gzip.compress(body)), 503)
        for answered in waiting:
            assert f"elements is {MANY + 1}" in refused(answered.result(5))
