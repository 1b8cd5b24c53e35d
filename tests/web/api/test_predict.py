import base64
import gc
import random
import tracemalloc
from base64 import urlsafe_b64encode
from urllib.parse import quote, urlencode

import pytest

from pictures import picture
from predictor.errors import DamagedImage
from predictor.web.base64_text import from_base64
from uploads import RED, b64, file

URLENCODED = "application/x-www-form-urlencoded"
BLUE = {"class_id": "n00000002", "class_name": "blue_thing"}


def test_photo_in_a_form_gets_the_promised_answer(client):
    response = client.post("/predict", data={"file": file(picture())})
    assert response.status_code == 200
    assert response.mimetype == "application/json"
    assert response.text == '{"class_id": "n00000000", "class_name": "red_thing"}\n'


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param({"data": picture(), "content_type": "image/png"}, id="image type"),
        pytest.param({"data": picture(), "content_type": "image/jpeg"}, id="wrong image type"),
        pytest.param({"data": picture(), "content_type": "application/octet-stream"}, id="octets"),
        pytest.param({"data": picture(), "content_type": URLENCODED}, id="curl"),
        pytest.param({"data": picture()}, id="no type"),
        pytest.param(
            {"data": picture(), "headers": {"Content-Encoding": "Identity"}}, id="identity"
        ),
        pytest.param({"json": {"image": b64(picture())}}, id="json"),
        pytest.param({"json": {"image": f"data:image/png;base64,{b64(picture())}"}}, id="data url"),
        pytest.param({"json": {"image": f"DATA:IMAGE/PNG;BASE64, {b64(picture())}"}}, id="shouted"),
        pytest.param({"json": {"image": f"data:,{quote(b64(picture()))}"}}, id="quoted data url"),
        pytest.param({"json": {"image": b64(picture()).rstrip("=")}}, id="no padding"),
        pytest.param({"json": {"image": base64.encodebytes(picture()).decode()}}, id="lines"),
        pytest.param({"json": {"image": urlsafe_b64encode(picture()).decode()}}, id="url-safe"),
        pytest.param({"data": {"file": b64(picture())}}, id="base64 in a form"),
        pytest.param(
            {"data": urlencode({"image": b64(picture())}), "content_type": URLENCODED},
            id="base64 urlencoded",
        ),
        pytest.param(
            {"data": f"image={b64(picture())}", "content_type": URLENCODED},
            id="base64 that should have been urlencoded",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_every_usual_way_to_send_a_photo_works(client, method, request_):
    assert client.open("/predict", method=method, **request_).json == RED


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("name", ["", "photo.jpg", "my%20photo", "%25"])
def test_predict_accepts_a_slash_and_the_name_that_curl_appends(client, name, method):
    assert client.open(f"/predict/{name}", method=method, data=picture()).json == RED


def test_large_base64_fits_into_a_form_field(client):
    noise = picture(size=(700, 700)) + bytes(600_000)
    response = client.post("/predict", data={"image": b64(noise)})
    assert response.json == RED


def test_top_k_adds_predictions_best_first(client):
    answer = client.post("/predict?top_k=3", data={"file": file(picture("blue"))}).json
    assert {key: answer[key] for key in BLUE} == BLUE
    assert list(answer["predictions"][0]) == [
        "class_index",
        "class_id",
        "class_name",
        "probability",
    ]
    probabilities = [prediction["probability"] for prediction in answer["predictions"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1)


def test_each_of_several_photos_gets_its_own_result(client):
    files = [file(picture("red")), file(b"text"), file(picture("blue"))]
    results = client.post("/predict", data={"file": files}).json["results"]
    assert [results[0], results[2]] == [RED, BLUE]
    assert results[1]["error"]["status"] == 415


def test_each_of_several_json_photos_gets_its_own_result(client):
    body = {"images": [b64(picture("blue")), "!", 7, "", b64(picture("red"))]}
    results = client.post("/predict", json=body).json["results"]
    assert [results[0], results[4]] == [BLUE, RED]
    assert [result["error"]["status"] for result in results[1:4]] == [400, 400, 400]


def test_list_of_one_photo_gets_a_list(client):
    assert client.post("/predict", json={"images": [b64(picture())]}).json == {"results": [RED]}


@pytest.mark.parametrize("broken", [0, "", "!"])
def test_too_many_images_are_413_before_decoding(client, broken):
    response = client.post("/predict", json={"images": [broken] * 10_000})
    assert response.status_code == 413
    assert len(response.data) < 1000


JSON_ROUTES = [
    "/predict", "/explain", "/preview", "/predictions/toy", "/invocations", "/explanations/toy",
    "/v1/models/toy:predict", "/v1/models/toy:explain", "/v2/models/toy/infer",
]  # fmt: skip


@pytest.mark.parametrize("value", [b"[]", b"{}", b'"ab"', b'{"a":1}', b"[0]"])
@pytest.mark.parametrize("path", JSON_ROUTES)
def test_json_of_too_many_values_is_413_before_parsing(client, path, value, monkeypatch):
    monkeypatch.setattr("json.loads", lambda *_args, **_options: pytest.fail("parsed"))
    body = b'{"inputs": [' + (value + b",") * 300_000 + b"0]}"
    response = client.post(path, data=body, content_type="application/json")
    assert response.status_code == 413
    assert "too many values" in response.text


def test_json_of_the_most_images_with_all_members_is_parsed(make_client):
    client = make_client(max_queue=10_000)
    instance = {"image_bytes": {"b64": "data:image/png;base64,!"}, "target": 1}
    response = client.post("/v1/models/toy:predict", json={"instances": [instance] * 10_000})
    assert "Image 1 of 10000" in response.json["error"]


@pytest.mark.parametrize("text", ["aa " * 10**6, "data:," + "%41" * 10**6, "\u20ac" * 10**6])
def test_base64_of_blanks_and_escapes_takes_little_memory(text):
    tracemalloc.start()
    try:
        from_base64(text)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encode", [base64.b64encode, urlsafe_b64encode, base64.encodebytes])
def test_base64_of_several_megabytes_is_decoded_whole(encode):
    photo = random.Random(0).randbytes(3_100_001)
    assert from_base64(encode(photo).decode()) == photo


def test_base64_does_not_stop_other_threads_while_it_is_decoded(monkeypatch):
    """Many calls are made, of one step each; between them Python lets other threads run."""
    calls, decode = [], base64.b64decode
    monkeypatch.setattr(base64, "b64decode", lambda part, **kw: calls.append(part) or decode(part))
    from_base64(b64(bytes(3_000_000)))
    assert max(map(len, calls)) <= 1_000_000


def test_top_k_applies_to_each_photo(client):
    body = {"images": [b64(picture("blue"))] * 2}
    results = client.post("/predict?top_k=2", json=body).json["results"]
    assert [len(result["predictions"]) for result in results] == [2, 2]


FORM = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + picture() + b"\r\n--b--"
WRONG_TYPES = {
    "a photo as a form": (picture(), "multipart/form-data"),
    "a photo as JSON": (picture(), "application/json"),
    "a form without a boundary": (FORM, "multipart/form-data"),
    "a form as JSON": (FORM, "application/json"),
    "a form as bytes": (FORM, "application/octet-stream"),
    "a form after a line break": (b"\r\n" + FORM, "application/octet-stream"),
    "base64 as a form": (b64(picture()), "multipart/form-data"),
    "JSON as bytes": (b'{"image": "%s"}' % b64(picture()).encode(), "application/octet-stream"),
    "parts that are mixed": (FORM, "multipart/mixed; boundary=b"),
    "JSON as a urlencoded form": (b'{"image": "%s"}' % b64(picture()).encode(), URLENCODED),
    "JSON as text": (b'\n[{"image": "%s"}]' % b64(picture()).encode(), "text/plain;charset=UTF-8"),
    "JSON without a type": (b'"%s"' % b64(picture()).encode(), None),
    "base64 as text": (b64(picture()), "text/plain"),
    "base64 in lines": (base64.encodebytes(picture()), "text/plain"),
    "base64 as a urlencoded form": (b64(picture()), URLENCODED),
    "a data URL without a type": (f"data:image/png;base64,{b64(picture())}", None),
    "a data URL as bytes": (f"data:image/png;base64,{b64(picture())}", "application/octet-stream"),
    "Python's bytes": (str(base64.b64encode(picture())), "text/plain"),
    "a byte order mark": ("\ufeff" + b64(picture()), "text/plain"),
}


@pytest.mark.parametrize("path", ["/predict", "/predictions/toy"])
@pytest.mark.parametrize("case", WRONG_TYPES)
def test_content_decides_where_the_content_type_is_wrong(client, case, path):
    body, kind = WRONG_TYPES[case]
    response = client.post(path, data=body, content_type=kind)
    assert response.status_code == 200, response.text
    assert "red_thing" in response.text


BAD = {
    "nothing": ({}, 400, "body is empty"),
    "empty file": ({"data": {"file": file(b"")}}, 400, "0 bytes"),
    "no file chosen": ({"data": {"file": file(b"", "")}}, 400, "0 bytes"),
    "text": ({"data": {"file": file(b"hello")}}, 415, "not an image"),
    "text body": ({"data": b"hello", "content_type": "text/plain"}, 415, "not an image"),
    "wrong field": ({"data": {"photo": "text"}}, 400, "'photo' (text)"),
    "a text beside": ({"data": {"notes": file(b"hello"), "a": "b"}}, 415, "not an image"),
    "forgotten @": ({"data": {"file": "photo.jpg"}}, 400, "@"),
    "empty form": ({"data": {"a": "b"}}, 400, "'a'"),
    "damaged": ({"data": {"file": file(picture()[:50])}}, 422, "damaged"),
    "not JSON": ({"data": b"{", "content_type": "application/json"}, 400, "not JSON"),
    "not UTF-8": ({"data": b"\xff", "content_type": "application/json"}, 400, "not JSON"),
    "deep json": ({"data": b"[" * 100_000, "content_type": "application/json"}, 400, "not JSON"),
    "json list": ({"json": []}, 400, '"image"'),
    "json without image": ({"json": {"img": "x"}}, 400, '"image"'),
    "json null": ({"json": {"image": None}}, 400, "not a string"),
    "json no images": ({"json": {"images": []}}, 400, "at least one"),
    "json image and images": ({"json": {"image": "", "images": []}}, 400, "both"),
    "json images not a list": ({"json": {"images": "x"}}, 400, '"images"'),
    "bad base64": ({"json": {"image": "%%%"}}, 400, "not base64"),
    "empty base64": ({"json": {"image": ""}}, 400, "0 bytes"),
    "base64 of text": ({"json": {"image": b64(b"hello")}}, 415, "not an image"),
    "compressed": ({"data": picture(), "headers": {"Content-Encoding": "gzip"}}, 415, "gzip"),
    "multipart without boundary": (
        {"data": b"x", "content_type": "multipart/form-data"}, 400, "boundary is missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_predict_request_gets_a_helpful_error(client, case):
    request_, status, words = BAD[case]
    if "data" in request_ and isinstance(request_["data"], dict):  # a stream is read only once
        copied = {
            k: file(v[0].getvalue(), v[1]) if isinstance(v, tuple) else v
            for k, v in request_["data"].items()
        }
        request_ = {**request_, "data": copied}
    response = client.post("/predict", **request_)
    assert response.status_code == status
    assert response.mimetype == "application/problem+json"
    assert response.json["status"] == status
    assert words in response.json["detail"]


@pytest.mark.parametrize("colour", ["red", "green", "blue"])
def test_body_can_be_one_photo(client, colour):
    answer = client.post("/predict", data=picture(colour), content_type="image/png").json
    assert answer["class_name"] == f"{colour}_thing"


@pytest.mark.parametrize("path", ["/predict", "/", "/predictions/toy", "/v1/models/toy:predict"])
def test_a_refused_photo_is_not_kept_in_memory(client, path):
    """An error in a list of one of its frames would keep all until a full garbage collection."""
    photo = picture()[:60] + bytes(100_000)
    gc.collect()
    gc.disable()
    try:
        assert client.post(path, data=photo, content_type="image/png").status_code == 422
        kept = [o for o in gc.get_objects() if type(o) is DamagedImage]
    finally:
        gc.enable()
    assert kept == []
