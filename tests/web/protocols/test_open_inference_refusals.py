import contextlib
import gzip
import json
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from conftest import store_of
from leaving import gone
from pictures import picture, tiny_webp
from predictor.engine.call import Call
from predictor.engine.served import MANY, NUMBER_S
from predictor.environ import LEFT
from predictor.web import json_body
from predictor.web.protocols.open_inference import tensors
from predictor.web.protocols.open_inference.compression import FREE_BYTES, MAX_RATIO, most_unpacked
from waiting import wait_until
from web.protocols.v2 import BLUE, HEADER, RED, b64, binary, element, image, logits, plane, refused

numbers = tensors._numbers


BAD = {
    "nothing": ({}, "inputs"),
    "not JSON": ({"data": b"{"}, "not JSON"),
    "a list": ({"data": b"[]"}, "an object"),
    "deep JSON": ({"data": b"[" * 100_000}, "not JSON"),
    "no inputs": ({"inputs": []}, "one input, 'image'; the request has none"),
    "text as input": ({"inputs": ["x"]}, "An input must be an object"),
    "two inputs": ({"inputs": [image([b64(RED)])] * 2}, "one input"),
    "another name": ({"inputs": [image([1.0], "FP32") | {"name": "x"}]}, "has 'x'"),
    "no name": ({"inputs": [image([b64(RED)]) | {"name": 7}]}, "must be a string"),
    "no shape": ({"inputs": [image([b64(RED)]) | {"shape": "1"}]}, "list of at most 4"),
    "a boolean shape": ({"inputs": [image([b64(RED)], shape=[True])]}, "list of at most 4"),
    "a negative shape": ({"inputs": [image([b64(RED)], shape=[-2])]}, "list of at most 4"),
    "a second side of -1": ({"inputs": [image([b64(RED)], shape=[1, -1])]}, "list of at most 4"),
    "no whole number of images": (
        {"inputs": [image([1] * 191, "UINT8", [-1, 3, 8, 8])]},
        "191; one image, of shape [3, 8, 8], has 192."),
    "a photo in place of a tensor": (
        {"model": "toy-tensor", "data": b"photo" * 4, "headers": {HEADER: "0"}},
        "The number of elements is 5; one image, of shape [3, 8, 8], has 192."),
    "an unknown number of none": ({"inputs": [image([], shape=[-1])]}, "at least one image"),
    "a side of zero": ({"inputs": [image([1], "UINT8", [-1, 0])]}, "shape needs 0"),
    "a huge shape": ({"inputs": [image([b64(RED)], shape=[2**62, 2**62])]}, "at most 4 whole"),
    "a shape with many sides": (
        {"inputs": [image([b64(RED)], shape=[9] * 100_000)]}, "at most 4 whole"),
    "long text for numbers": (
        {"inputs": [image(["a" * 10**6] + [""] * 191, "FP32", [1, 3, 8, 8])]}, "FP32 numbers"),
    "a lone surrogate": ({"inputs": [image([1.0], "FP32") | {"name": "\ud800"}]}, "\\ud800"),
    "a long id": ({"inputs": [image([b64(RED)])], "id": "x" * 2000}, "1024 characters"),
    "an input in shared memory": (
        {"inputs": [image(None, shape=[1], parameters={"shared_memory_region": "x"})]},
        "Shared memory"),
    "shared memory": (
        {"inputs": [image([b64(RED)])], "outputs": [
            {"name": "logits", "parameters": {"shared_memory_region": "x"}}]}, "Shared memory"),
    "an empty shape": ({"inputs": [image([b64(RED)], shape=[])]}, "at least one image"),
    "an empty batch": ({"inputs": [image([])]}, "at least one image"),
    "an odd shape": ({"inputs": [image([b64(RED)], shape=[1, 1, 1])]}, "it must be [N]"),
    "another datatype": ({"inputs": [image([1.0], "FP16")]}, "it must be BYTES, FP32 or UINT8"),
    "no data": ({"inputs": [image(None, shape=[1])]}, 'must have a list "data"'),
    "not base64": ({"inputs": [image(["!"])]}, "not base64"),
    "numbers for photos": ({"inputs": [image([7])]}, "not a string"),
    "another side": ({"inputs": [image([0] * 27, "UINT8", [1, 3, 3, 3])]}, "[N, 3, 8, 8]"),
    "a ragged list": ({"inputs": [image([[1], 2, 3], "FP32", [3])]}, "list of FP32 numbers"),
    "text for numbers": ({"inputs": [image(["1"] * 192, "FP32", [1, 3, 8, 8])]}, "numbers"),
    "null for numbers": ({"inputs": [image([None] * 192, "FP32", [1, 3, 8, 8])]}, "numbers"),
    "fractional pixels": ({"inputs": [image([0.5] * 192, "UINT8", [1, 3, 8, 8])]}, "UINT8"),
    "pixels over 255": ({"inputs": [image([256] * 192, "UINT8", [1, 3, 8, 8])]}, "0 to 255"),
    "too few": ({"inputs": [image([1] * 191, "UINT8", [1, 3, 8, 8])]}, "shape needs 192"),
    "not a number": (
        {"model": "toy-tensor", "data": np.full(192, np.nan, "<f4").tobytes(),
         "headers": {HEADER: "0"}}, "outside ±10,000"),
    "too large for FP32": (
        {"inputs": [image([1e300] * 192, "FP32", [1, 3, 8, 8])]}, "outside ±10,000"),
    "another output": (
        {"inputs": [image([b64(RED)])], "outputs": [{"name": "x"}]}, 'one output, "logits"'),
    "text as outputs": ({"inputs": [image([b64(RED)])], "outputs": "x"}, "a list of objects"),
    "boolean classes": (
        {"inputs": [image([b64(RED)])],
         "outputs": [{"name": "logits", "parameters": {"classification": True}}]}, "classes"),
    "text for binary": (
        {"inputs": [image([b64(RED)])], "parameters": {"binary_data_output": "x"}}, "true or"),
    "boolean parameters": (
        {"inputs": [image([b64(RED)])], "parameters": False}, '"parameters" must be'),
    "a fractional shape": ({"inputs": [image([b64(RED)], shape=[1.5])]}, "whole numbers"),
    "text parameters": (
        {"inputs": [image([b64(RED)])], "parameters": "x"}, '"parameters" must be'),
    "a number as id": ({"inputs": [image([b64(RED)])], "id": 7}, '"id" must be a string'),
    "a header too large": ({"data": b"{}", "headers": {HEADER: "3"}}, "at most 2, the length"),
    "a header of text": ({"data": b"{}", "headers": {HEADER: "x"}}, "at most 2, the length"),
    "a long header": ({"data": b"{}", "headers": {HEADER: "9" * 5000}}, "at most 2, the length"),
    "bytes left over": (binary({"inputs": [image([b64(RED)])]}, b"xx"), "2 bytes after the JSON"),
    "a size too large": (
        binary({"inputs": [image(None, shape=[1], parameters={"binary_data_size": 9})]}, b"x"),
        "after the JSON, 1"),
    "a size of text": (
        binary({"inputs": [image(None, shape=[1], parameters={"binary_data_size": "1"})]}, b"x"),
        "after the JSON, 1"),
    "an element cut off": (
        binary({"inputs": [image(None, shape=[1], parameters={"binary_data_size": 2})]}, b"xx"),
        "within the length"),
    "an element too long": (
        binary({"inputs": [image(None, shape=[1], parameters={"binary_data_size": 4})]},
               b"\xff" * 4), "longer than the rest"),
    "part of a number": (
        binary({"inputs": [image(None, "FP32", [1], parameters={"binary_data_size": 3})]}, b"xxx"),
        "not a multiple of 4"),
    "an empty raw photo": ({"data": b"", "headers": {HEADER: "0"}}, "0 bytes"),
    "not gzip": ({"data": b"{}", "headers": {"Content-Encoding": "gzip"}}, "not gzip"),
    "truncated gzip": (
        {"data": gzip.compress(b"{}" * 99)[:-9], "headers": {"Content-Encoding": "gzip"}},
        "truncated gzip"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_v2_request_gets_a_helpful_error(infer, case):
    request, words = BAD[case]
    assert words in refused(infer(**request))


@pytest.mark.parametrize("body", ["[]", '{"ready": 1}', "7"])
def test_invalid_repository_index_body_is_400(client, body):
    assert "ready" in refused(client.post("/v2/repository/index", data=body))


def test_unknown_content_encoding_is_415(infer):
    assert "br" in refused(infer(data=b"{}", headers={"Content-Encoding": "br"}), 415)


@pytest.mark.parametrize("shape", [[65], [-1]])
def test_too_many_v2_images_are_413(infer, shape):
    assert "65 images" in refused(infer(inputs=[image(["!"] * 65, shape=shape)]), 413)
    data = element(RED) * 100
    only = image(None, shape=shape, parameters={"binary_data_size": len(data)})
    assert "65 images" in refused(infer(**binary({"inputs": [only]}, data)), 413)


def test_decompression_stops_at_the_upload_limit(make_client):
    client = make_client(max_upload_bytes=100_000)
    bomb = gzip.compress(bytes(10_000_000))
    response = client.post("/v2/models/toy/infer", data=bomb, headers={"Content-Encoding": "gzip"})
    assert len(bomb) < 100_000
    assert "100,000 bytes" in refused(response, 413)


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "9" * 4300])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_tensor_of_nan_or_long_numbers_is_400(infer, value, pack):
    body = pack(b'{"inputs": [%s]}' % ",".join([value] * 100).encode())
    headers = {"Content-Encoding": "gzip"} if pack is gzip.compress else {}
    assert "at most 40 digits" in refused(infer(data=body, headers=headers))


def test_small_body_cannot_decompress_to_megabytes(infer):
    bomb = gzip.compress(b"[" + b"[]," * 4_000_000)
    assert len(bomb) < 40_000
    response = infer(data=bomb, headers={"Content-Encoding": "gzip"})
    assert "1,000,000 bytes" in refused(response, 413)


def test_bytes_that_compression_adds_do_not_pay_for_decoding(infer):
    padded = tiny_webp(20) + bytes(100_000)
    request = json.dumps({"inputs": [image([b64(padded)])]}).encode()
    assert infer(data=request).status_code == 200
    response = infer(data=gzip.compress(request), headers={"Content-Encoding": "gzip"})
    assert "processor time" in refused(response, 413)


def test_images_after_the_first_need_some_bytes_as_they_were_sent(infer):
    request = json.dumps({"inputs": [image([b64(picture("blue"))] * 30)]}).encode()
    assert infer(data=request).status_code == 200
    packed = gzip.compress(request)
    response = infer(data=packed, headers={"Content-Encoding": "gzip"})
    assert f"30 images in {len(packed)} bytes" in refused(response, 413)


@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
@pytest.mark.parametrize("nested", [True, False])
def test_large_json_tensor_is_converted_in_steps(infer, monkeypatch, datatype, nested):
    pixels = np.concatenate([plane(0), plane(1, 100), plane(2)])
    inputs = [image((pixels if nested else pixels.ravel()).tolist(), datatype, [3, 3, 8, 8])]
    expected, turns = logits(infer(inputs=inputs)), []
    for module in (json_body, tensors):
        monkeypatch.setattr(module, "TURN", 100)
    monkeypatch.setattr(tensors, "_numbers", lambda part: turns.append(len(part)) or numbers(part))
    assert (logits(infer(inputs=inputs)) == expected).all()
    assert turns == [100] * 5 + [76]


def test_lone_surrogate_in_an_id_is_escaped(infer):
    assert infer(id="\ud800", inputs=[image([b64(RED)])]).json["id"] == "\\ud800"


def test_too_many_elements_are_refused_before_decoding(infer, monkeypatch):
    from_base64 = "predictor.web.protocols.open_inference.tensors.from_base64"
    monkeypatch.setattr(from_base64, lambda _: pytest.fail("decoded"))
    assert "elements" in refused(infer(inputs=[image([0] * 100_000, shape=[1])]))
    assert "65 images" in refused(infer(inputs=[image([0] * 65)]), 413)


def test_error_text_is_short_for_a_long_value(infer):
    assert len(refused(infer(inputs=[image([b64(RED)]) | {"datatype": "x" * 10**6}]))) < 600


def test_repository_index_body_is_limited(client):
    body = gzip.compress(b" " * 100_000 + b"{}")
    headers = {"Content-Encoding": "gzip"}
    refused(client.post("/v2/repository/index", data=body, headers=headers), 413)


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


def test_gzip_says_how_much_it_decompresses_to_and_a_lie_is_400(infer):
    """So a body of many numbers waits among its like before it is decompressed."""
    body = json.dumps({"inputs": [image([b64(BLUE)])]}).encode()
    packed, limit = gzip.compress(body), 20_000_000
    assert most_unpacked(packed, limit) == len(body)
    assert most_unpacked(zlib.compress(body), limit) == FREE_BYTES
    assert most_unpacked(bytes(100_000), limit) == 100_000 * MAX_RATIO
    lie = packed[:-4] + (len(body) - 1).to_bytes(4, "little")
    assert most_unpacked(lie, limit) == len(body) - 1
    headers = {"Content-Encoding": "gzip"}
    assert logits(infer(data=packed, headers=headers)).argmax() == 2
    assert "damaged" in refused(infer(data=lie, headers=headers))


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


@pytest.mark.parametrize("lists", [b"[],", b"[" * 400 + b"]" * 400 + b",", b"{},", b'"",'])
def test_many_lists_in_few_compressed_bytes_are_413_before_parsing(infer, monkeypatch, lists):
    """To parse them keeps Python's lock for 0.08 s. Sent as they are, they are paid for."""
    body = b'{"a": [%s0]}' % (lists * (30_000 // lists.count(lists[:1])))
    headers = {"Content-Encoding": "gzip"}
    assert "must be a list of tensors" in refused(infer(data=body))
    monkeypatch.setattr(json_body.json, "loads", pytest.fail)
    assert infer(data=gzip.compress(body), headers=headers).status_code == 413
