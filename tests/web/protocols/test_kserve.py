import base64
import io
import json

import pytest

from conftest import store_of
from pictures import picture


def b64(data):
    return base64.b64encode(data).decode()


RED, BLUE = b64(picture("red")), b64(picture("blue"))


@pytest.fixture
def post(client):
    def post(content, verb="predict", model="toy"):
        return client.post(f"/v1/models/{model}:{verb}", json=content)

    return post


def names(response):
    assert response.status_code == 200, response.text
    return [one["class_name"] for one in response.json["predictions"]]


def refused(response, status=400):
    assert response.status_code == status
    assert list(response.json) == ["error"]
    return response.json["error"]


def test_v1_lists_the_model_as_ready(client):
    assert client.get("/v1/models").json == {"models": ["toy"]}
    for path in ("/v1/models/toy", "/v1/models/toy/versions/1"):
        answer = client.get(path).json
        assert (answer["name"], answer["ready"]) == ("toy", True)
        (status,) = answer["model_version_status"]
        assert (status["version"], status["state"]) == ("1", "AVAILABLE")


def test_root_is_a_liveness_probe_for_json_clients(client):
    alive = client.get("/", headers={"Accept": "application/json"})
    assert alive.json == {"status": "alive"}
    for accepted in ("*/*", "text/html,application/xhtml+xml,*/*;q=0.8"):
        assert client.get("/", headers={"Accept": accepted}).mimetype == "text/html"


def test_v1_is_503_while_the_model_loads(loading_client):
    for path in ("/v1/models", "/v1/models/vgg16"):
        assert "loading" in refused(loading_client.get(path), 503)


@pytest.mark.parametrize(
    "instance",
    [{"b64": RED}, {"data": RED}, {"image_bytes": {"b64": RED}}, {"image": RED}, RED,
     {"b64": f"data:image/png;base64,{RED}"}, {"image_bytes": {"b64": RED}, "key": "7"},
     {"photo": RED, "key": "7"}, {"data": {"image": {"base64": RED}}}],
)  # fmt: skip
def test_instance_may_name_its_photo_as_any_client_does(post, instance):
    assert names(post({"instances": [instance]})) == ["red_thing"]


def test_instances_get_the_answers_of_predict_in_order(client, post):
    own = client.post("/predict?top_k=3", data=picture("blue")).json
    answer = post({"signature_name": "serving_default", "instances": [{"b64": RED}, {"b64": BLUE}]})
    assert names(answer) == ["red_thing", "blue_thing"]
    assert answer.json["predictions"][1] == own


def test_inputs_are_accepted_as_instances(post):
    assert names(post({"inputs": [{"b64": BLUE}]})) == ["blue_thing"]


@pytest.mark.parametrize("top_k", [2, 2.0, "2"])  # as some languages write their numbers
def test_v1_top_k_sets_the_number_of_classes(post, top_k):
    answer = post({"instances": [{"b64": RED}], "parameters": {"top_k": top_k}})
    assert len(answer.json["predictions"][0]["predictions"]) == 2


@pytest.mark.parametrize(
    "request_",
    [
        {"data": {"file": (io.BytesIO(picture()), "a.png")}},
        {"data": {"image": RED, "top_k": "3"}},
        {"data": picture()},
        {"data": RED, "content_type": "text/plain"},
    ],
)
def test_v1_accepts_a_form_and_a_photo(client, request_):
    response = client.post("/v1/models/toy:predict?top_k=3", **request_)
    assert names(response) == ["red_thing"]
    assert len(response.json["predictions"][0]["predictions"]) == 3


def test_v1_form_without_an_image_is_400(client):
    response = client.post("/v1/models/toy:predict", data={"file": (io.BytesIO(b""), "")})
    assert "0 bytes" in refused(response)
    response = client.post("/v1/models/toy:predict", data={"a": (io.BytesIO(b""), "")})
    assert "'a' (empty)" in refused(response)


@pytest.mark.parametrize("target", ["", "?class_index=2"])
def test_v1_explains_the_class_of_the_query(client, target):
    response = client.post(f"/v1/models/toy:explain{target}", json={"instances": [RED, RED]})
    expected = "blue_thing" if target else "red_thing"
    assert [one["class_name"] for one in response.json["explanations"]] == [expected] * 2


@pytest.mark.parametrize("path", ["/v1/models/toy:explain", "/explanations/toy"])
def test_class_of_the_query_may_not_contradict_a_target(client, path):
    for target, status in ((1, 400), (2, 200), (None, 200)):
        body = {"instances": [{"b64": RED, "target": target}]}
        response = client.post(f"{path}?class_index=2", json=body)
        assert response.status_code == status
        assert ("is 1, but class_index is 2. Send one." in response.text) == (status == 400)


def test_v1_accepts_a_version_and_any_content_type(client):
    body = json.dumps({"instances": [{"b64": RED}]})
    for headers in ({}, {"Content-Type": "application/x-www-form-urlencoded"}):
        response = client.post("/v1/models/toy/versions/1:predict", data=body, headers=headers)
        assert names(response) == ["red_thing"]


def test_v1_explanation_has_the_numbers_of_explain(client, post):
    own = client.post("/explain?format=json&class_index=2", data=picture()).json
    answer = post({"instances": [{"b64": RED}, {"b64": RED, "target": 2}]}, "explain").json
    assert answer["predictions"] == []
    assert [one["class_name"] for one in answer["explanations"]] == ["red_thing", "blue_thing"]
    assert answer["explanations"][1] == own


@pytest.mark.parametrize("verb", ["predict", "explain"])
@pytest.mark.parametrize("model", ["dog", "toy/versions/2", "dog/versions/1"])
def test_unknown_v1_model_or_version_is_404(client, post, verb, model):
    assert "'toy'" in refused(post({"instances": [RED]}, verb, model), 404)
    assert "'toy'" in refused(client.get(f"/v1/models/{model}"), 404)


def test_v1_explain_is_404_when_switched_off(make_client):
    client = make_client(max_explanations=0)
    refused(client.post("/v1/models/toy:explain", json={}), 404)
    assert client.post("/v1/models/toy:predict", json={"instances": [RED]}).status_code == 200


def test_wrong_v1_method_is_405(client):
    response = client.get("/v1/models/toy:predict")
    refused(response, 405)
    assert "POST" in response.headers["Allow"]


BAD = {
    "not an object": ([], 400, "Unrecognized request format"),
    "no instances": ({"instance": []}, 400, "Unrecognized request format"),
    "not a list": ({"instances": RED}, 400, '"instances" must be a list.'),
    "an empty list": ({"instances": []}, 400, "at least one"),
    "not base64": ({"instances": [{"b64": "!"}]}, 400, "not base64"),
    "another name": ({"instances": [{"photo": "x"}]}, 400, "b64, data, body, image, image_bytes"),
    "two other names": ({"instances": [{"a": RED, "b": RED}]}, 400, "exactly one of the names"),
    "an unknown parameter": ({"instances": [RED], "topK": 2}, 400, "Did you mean top_k?"),
    "two photos in one": (
        {"instances": [{"b64": RED, "data": RED}]},
        400,
        "exactly one of the names",
    ),
    "an empty object": ({"instances": [{"image_bytes": {}}]}, 400, "exactly one of the names"),
    "numbers": ({"instances": [[0.1, 0.2]]}, 400, "not a string"),
    "the second": ({"instances": [RED, 7]}, 400, "Image 2 of 2: "),
    "text": ({"instances": [b64(b"text")]}, 415, "not an image"),
    "damaged": ({"instances": [RED, b64(picture()[:60])]}, 422, "Image 2 of 2: "),
    "too many": ({"instances": ["!"] * 65}, 413, "65 images"),
    "boolean parameters": ({"instances": [RED], "parameters": False}, 400, "must be an object"),
    "a boolean top_k": ({"instances": [RED], "parameters": {"top_k": True}}, 400, "top_k is True"),
    "a fractional top_k": ({"instances": [RED], "parameters": {"top_k": 1.5}}, 400, "top_k is 1.5"),
    "a text top_k": ({"instances": [RED], "parameters": {"top_k": "x"}}, 400, "top_k is 'x'"),
    "two values": ({"instances": [RED], "top_k": 1, "parameters": {"top_k": 2}}, 400, "2 times"),
    "top_k of zero": ({"instances": [RED], "parameters": {"top_k": 0}}, 400, "top_k is 0"),
    "text parameters": ({"instances": [RED], "parameters": "x"}, 400, "must be an object"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_v1_request_gets_a_helpful_error(post, case):
    content, status, words = BAD[case]
    assert words in refused(post(content), status)


def test_bad_v1_explain_request_gets_a_helpful_error(post):
    assert "5 images" in refused(post({"instances": [RED] * 5}, "explain"), 413)
    bad_target = {"instances": [{"b64": RED, "target": "2"}]}
    assert "it must be a class index" in refused(post(bad_target, "explain"))
    bad_target = {"instances": [{"b64": RED, "target": []}]}
    assert '"target" is an array;' in refused(post(bad_target, "explain"))
    assert "0 and 2" in refused(post({"instances": [{"b64": RED, "target": 3}]}, "explain"))


def test_v1_is_503_with_retry_after_at_the_limit(make_app):
    app = make_app(max_in_flight=1)
    client = app.test_client()
    with store_of(app).process.slots.hold():
        response = client.post("/v1/models/toy:predict", json={"instances": [RED]})
    refused(response, 503)
    assert response.headers["Retry-After"]
