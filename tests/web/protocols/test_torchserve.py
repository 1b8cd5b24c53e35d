import base64
import io
import os
from datetime import datetime

import numpy as np
import pytest

from conftest import app_of, store_of
from pictures import picture
from predictor.engine.classifier import Classifier
from predictor.models.card import Card
from predictor.models.labels import Label
from predictor.models.scorer import LoadedModel
from predictor.settings import Settings
from toy import ToyInfo, ToyModel

RED, BLUE = picture("red"), picture("blue")


def b64(data):
    return base64.b64encode(data).decode()


def best(answer):
    return max(answer, key=answer.get)


def refused(response, status, kind):
    assert response.status_code == status
    assert list(response.json) == ["code", "type", "message"]
    assert (response.json["code"], response.json["type"]) == (status, kind)
    return response.json["message"]


def test_ping_is_healthy_when_ready(client):
    response = client.get("/ping")
    assert response.text == '{\n  "status": "Healthy"\n}\n'
    assert response.headers["X-Request-ID"]


def test_ping_is_500_when_not_ready(loading_client, client, store):
    store.close()
    for unready in (loading_client, client):
        response = unready.get("/ping")
        assert (response.status_code, response.json) == (500, {"status": "Unhealthy"})


@pytest.mark.parametrize(
    ("method", "path", "root"),
    [("OPTIONS", "/", "."), ("GET", "/api-description", "."), ("OPTIONS", "/predictions/toy", ".."),
     ("OPTIONS", "/predictions/toy/1.0", "../..")],
)  # fmt: skip
def test_torchserve_description_is_the_openapi_document(client, method, path, root):
    expected = client.get("/openapi.json").json | {"servers": [{"url": root}]}
    assert client.open(path, method=method).json == expected


def test_description_of_an_unknown_model_is_404(client):
    for path, kind in (("dog", "Model"), ("toy/2.0", "ModelVersion")):
        response = client.options(f"/predictions/{path}")
        refused(response, 404, f"{kind}NotFoundException")


# Predictions


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
@pytest.mark.parametrize("version", ["", "/1.0"])
def test_photo_gets_probabilities_by_label_best_first(client, method, version):
    answer = client.open(f"/predictions/toy{version}", method=method, data=BLUE).json
    assert best(answer) == next(iter(answer)) == "blue_thing"
    assert list(answer.values()) == sorted(answer.values(), reverse=True)
    assert sum(answer.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param({"data": RED}, id="body"),
        pytest.param({"data": RED, "content_type": "application/octet-stream"}, id="octets"),
        pytest.param(
            {"data": RED, "content_type": "application/x-www-form-urlencoded"}, id="curl -X POST"
        ),
        pytest.param({"data": RED, "content_type": "text/plain"}, id="a photo called text"),
        pytest.param({"data": b64(RED), "content_type": "text/plain"}, id="base64"),
        pytest.param({"data": {"data": b64(RED)}}, id="base64 in a form"),
        pytest.param({"json": b64(RED)}, id="json text"),
        pytest.param({"json": {"data": b64(RED)}}, id="json data"),
        pytest.param({"json": {"body": b64(RED)}}, id="json body"),
    ],
)
def test_every_torchserve_way_to_send_a_photo_works(client, request_):
    assert best(client.post("/predictions/toy", **request_).json) == "red_thing"


@pytest.mark.parametrize(
    "path", ["toy/photo.jpg", "toy/a.b.HEIC", "toy/1.0/photo.jpg", "toy/1.0/photo"]
)
def test_put_may_have_the_file_name_that_curl_appends(client, path):
    assert best(client.put(f"/predictions/{path}", data=BLUE).json) == "blue_thing"
    assert client.put(f"/explanations/{path}", data=BLUE).json["class_name"] == "blue_thing"


@pytest.mark.parametrize("name", ["photo", "2.0", "v2", "x.jpeg.1"])
def test_file_name_that_could_be_a_version_is_404(client, name):
    response = client.put(f"/predictions/toy/{name}", data=BLUE)
    assert name in refused(response, 404, "ModelVersionNotFoundException")


@pytest.mark.parametrize("field", ["data", "body", "file", "upload[]"])
def test_form_field_may_have_any_name(client, field):
    form = {field: (io.BytesIO(BLUE), "photo.png")}
    assert best(client.post("/predictions/toy", data=form).json) == "blue_thing"


def test_list_gets_a_list_and_instances_get_predictions(client):
    answers = client.post("/predictions/toy", json=[b64(RED), {"data": b64(BLUE)}]).json
    assert list(map(best, answers)) == ["red_thing", "blue_thing"]
    envelope = {"instances": [{"data": b64(RED)}, {"data": b64(BLUE)}]}
    assert client.post("/predictions/toy", json=envelope).json == {"predictions": answers}


@pytest.mark.parametrize(
    "path", ["/invocations", "/invocations?model_name=toy", "/models/toy/invoke"]
)
def test_sagemaker_paths_give_the_same_answer(client, path):
    assert client.post(path, data=RED).json == client.post("/predictions/toy", data=RED).json


class ConstantModel(ToyModel):
    """Returns the same logits for every image."""

    def __init__(self, logits):
        self.answer = np.float32(logits)

    def logits(self, images, lanes):
        return np.tile(self.answer, (len(images), 1))


@pytest.fixture
def crane_client():
    """A client of a model with six classes, of which two share a label."""
    names = ["boat", "crane", "cat", "crane", "dog", "elk"]
    labels = tuple(Label(f"n{i}", name) for i, name in enumerate(names))
    model = LoadedModel(
        ConstantModel([0, 4, 3, 5, 2, 1]),
        ToyInfo(),
        Card("toy", "toy", ToyModel.preprocessing, labels),
    )
    classifier = Classifier(Settings(), load=lambda *_: model)
    classifier.start()
    classifier.loading.result(timeout=10)
    yield app_of(classifier).test_client()
    classifier.close()


def test_top_five_keep_both_classes_that_share_a_label(crane_client):
    answer = crane_client.post("/predictions/toy", data=RED).json
    assert list(answer) == ["crane", "crane (n1)", "cat", "dog", "elk"]


def test_torchserve_explanation_has_the_numbers_of_explain(client):
    own = client.post("/explain?format=json&class_index=2", data=RED).json
    for path in ("/explanations/toy", "/explanations/toy/1.0"):
        assert client.put(f"{path}?class_index=2", data=RED).json == own
    for target, name in ((None, "red_thing"), (2, "blue_thing")):
        instance = {"data": b64(RED), "target": target}
        envelope = client.post("/explanations/toy", json={"instances": [instance]}).json
        assert envelope["explanations"][0]["class_name"] == name


def test_torchserve_explain_is_404_when_switched_off(make_client):
    client = make_client(max_explanations=0)
    message = refused(client.post("/explanations/toy"), 404, "ResourceNotFoundException")
    assert "/explanations/toy" in message


# What is refused


def test_unknown_model_or_version_has_torchserve_error_type(client):
    message = refused(client.post("/predictions/dog"), 404, "ModelNotFoundException")
    assert "'toy'" in message
    for path in ("/predictions/toy/2.0", "/explanations/toy/7"):
        refused(client.post(path), 404, "ModelVersionNotFoundException")
    refused(client.get("/models/dog"), 404, "ModelNotFoundException")
    refused(client.get("/models/toy/2.0"), 404, "ModelVersionNotFoundException")
    refused(client.post("/invocations?model_name=dog"), 404, "ModelNotFoundException")


@pytest.mark.parametrize("path", ["/models", "/models/toy"])
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_models_cannot_be_changed_over_http(client, path, method):
    response = client.open(path, method=method)
    refused(response, 405, "MethodNotAllowedException")
    assert "GET" in response.headers["Allow"]


def test_invoke_is_not_a_version(client):
    response = client.get("/models/toy/invoke")
    refused(response, 405, "MethodNotAllowedException")
    assert set(client.options("/models/toy/invoke").allow) == {"POST", "OPTIONS"}


BAD = {
    "nothing": ({}, 400, "BadRequestException", '"data"'),
    "text": ({"data": b"hello"}, 415, "UnsupportedMediaTypeException", "not an image"),
    "damaged": ({"data": RED[:60]}, 422, "UnprocessableEntityException", "damaged"),
    "another field": ({"data": {"file": "x"}}, 400, "BadRequestException", "'file'"),
    "not JSON": (
        {"data": b"{", "content_type": "application/json"}, 400, "BadRequestException", "JSON"),
    "json without": ({"json": {"x": 1}}, 400, "BadRequestException", "b64, data, body"),
    "no instances": ({"json": {"instances": 7}}, 400, "BadRequestException", "at least one image"),
    "the second": ({"json": [b64(RED), "!"]}, 400, "BadRequestException", "Image 2 of 2"),
    "text that is not base64": (
        {"data": "héllo", "content_type": "text/plain"}, 400, "BadRequestException", "not base64"),
    "too many": ({"json": ["!"] * 65}, 413, "RequestEntityTooLargeException", "65 images"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_torchserve_request_gets_a_helpful_error(client, case):
    request, status, kind, words = BAD[case]
    assert words in refused(client.post("/predictions/toy", **request), status, kind)


def test_torchserve_is_503_with_retry_after_at_the_limit(make_app):
    app = make_app(max_in_flight=1)
    client = app.test_client()
    with store_of(app).process.slots.hold():
        response = client.post("/predictions/toy", data=RED)
    refused(response, 503, "ServiceUnavailableException")
    assert response.headers["Retry-After"]


def test_torchserve_500_does_not_reveal_the_cause(client, store, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(store.default.classifier, "classify", fail)
    response = client.post("/predictions/toy", data=RED)
    assert "secret" not in refused(response, 500, "InternalServerException")


# Management


def test_models_are_listed_in_pages(client):
    only = {"modelName": "toy", "modelUrl": "toy.pth"}
    assert client.get("/models").json == {"models": [only]}
    assert client.get("/models?limit=500&next_page_token=0").json == {"models": [only]}
    assert client.get("/models?next_page_token=1").json == {"models": []}
    assert client.get("/models?limit=0").json == {"models": [only]}
    assert "limit" in refused(client.get("/models?limit=x"), 400, "BadRequestException")


@pytest.mark.parametrize("version", ["", "/1.0", "/all"])
def test_model_details_have_workers_and_queue(client, version):
    (model,) = client.get(f"/models/toy{version}").json
    assert (model["modelName"], model["modelVersion"], model["batchSize"]) == ("toy", "1.0", 8)
    assert (model["minWorkers"], model["responseTimeout"]) == (1, 30)
    assert model["jobQueueStatus"] == {"remainingCapacity": 64, "pendingRequests": 0}
    (worker,) = model["workers"]
    assert (worker["id"], worker["pid"], worker["status"]) == ("9000", os.getpid(), "READY")
    assert worker["memoryUsage"] > 10_000_000
    assert datetime.fromisoformat(worker["startTime"]) <= datetime.now().astimezone()
