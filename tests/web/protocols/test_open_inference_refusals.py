import gzip
import json

import numpy as np
import pytest

from pictures import picture, tiny_webp
from predictor.web import json_body
from predictor.web.protocols.open_inference import tensors
from web.protocols.v2 import HEADER, RED, b64, binary, element, image, logits, plane, refused

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
    "data after gzip": (
        {"data": gzip.compress(b"{}") + bytes(200_000), "headers": {"Content-Encoding": "gzip"}},
        "other data after it"),
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


@pytest.mark.parametrize("lists", [b"[],", b"[" * 400 + b"]" * 400 + b",", b"{},", b'"",'])
def test_many_lists_in_few_compressed_bytes_are_413_before_parsing(infer, monkeypatch, lists):
    """To parse them keeps Python's lock for 0.08 s. Sent as they are, they are paid for."""
    body = b'{"a": [%s0]}' % (lists * (30_000 // lists.count(lists[:1])))
    headers = {"Content-Encoding": "gzip"}
    assert "must be a list of tensors" in refused(infer(data=body))
    monkeypatch.setattr(json_body.json, "loads", pytest.fail)
    assert infer(data=gzip.compress(body), headers=headers).status_code == 413
