import contextlib
import io

import pytest
from PIL import Image

from conftest import store_of
from pictures import encode, picture
from predictor.models.labels import Label
from scrape import Scrape
from toy import LABELS


def test_explanation_is_a_picture_by_default(client):
    response = client.post("/explain?class_index=2", data=picture("blue", (64, 48)))
    assert (response.status_code, response.mimetype) == (200, "image/png")
    image = Image.open(io.BytesIO(response.data))
    assert image.size == (64, 48)
    assert response.headers["Content-Disposition"] == ("inline; filename=class-2.png")


def test_headers_of_a_picture_name_its_class(make_client, monkeypatch):
    labels = (*LABELS[:2], Label("blau,1", "tiefes Blau\n"))
    monkeypatch.setattr("toy.LABELS", labels)
    headers = make_client().post("/explain?class_index=2", data=picture("blue")).headers
    assert headers["X-Class-Index"] == "2"
    assert headers["X-Class-Id"] == "blau%2C1"
    assert headers["X-Class-Name"] == "tiefes%20Blau%0A"
    assert float(headers["X-Probability"]) > 0.9


@pytest.mark.parametrize(
    ("query", "accept", "mimetype"),
    [
        ("", "application/json", "application/json"),
        ("", "image/png", "image/png"),
        ("", "*/*", "image/png"),
        ("", "application/json, image/png;q=0.5", "application/json"),
        ("", "application/json" + ", a/b" * 200, "image/png"),
        ("?format=json", "image/png", "application/json"),
        ("?format=png", "application/json", "image/png"),
    ],
)
def test_format_parameter_overrides_the_accept_header(client, query, accept, mimetype):
    response = client.post(f"/explain{query}", data=picture(), headers={"Accept": accept})
    assert response.mimetype == mimetype
    assert "Accept" in response.headers["Vary"]


def test_json_explanation_has_heat_box_and_class(client):
    answer = client.post("/explain?class_index=0&format=json", data=picture("red", (90, 90))).json
    predicted = client.post("/predict?top_k=1", data=picture("red")).json["predictions"][0]
    assert {name: answer[name] for name in predicted} == predicted
    assert answer["heat"] == [[1, 1], [1, 1]]
    assert answer["box"] == pytest.approx([0, 0, 8 / 9, 8 / 9])


def test_best_class_is_explained_by_default(client):
    assert client.post("/explain?format=json", data=picture("green")).json["class_index"] == 1


def test_explain_accepts_forms_and_put(client):
    form = {"file": (io.BytesIO(picture()), "photo.png")}
    assert client.post("/explain", data=form).status_code == 200
    assert client.put("/explain/", data=picture()).status_code == 200
    assert client.put("/explain/photo.jpg", data=picture()).status_code == 200


@pytest.mark.parametrize(
    ("query", "data", "status", "words"),
    [
        ("class_index=3", picture(), 400, "0 and 2"),
        ("class_index=-1", picture(), 400, "whole number"),
        ("class_index=cat", picture(), 400, "'cat'"),
        ("format=svg", picture(), 400, "png or json"),
        ("", b"", 400, "no image"),
        ("", b"text", 415, "not an image"),
        ("", picture()[:40], 422, "damaged"),
    ],
)
def test_bad_explain_request_gets_a_helpful_error(client, query, data, status, words):
    response = client.post(f"/explain?{query}", data=data)
    assert (response.status_code, response.mimetype) == (status, "application/problem+json")
    assert words in response.json["detail"]


def test_explain_refuses_several_photos(client):
    form = {"file": [(io.BytesIO(picture()), f"{n}.png") for n in range(2)]}
    response = client.post("/explain", data=form)
    assert response.status_code == 413
    assert "the limit is 1" in response.json["detail"]


def test_explanations_over_the_limit_are_503_with_retry_after(app, client):
    slots = store_of(app).process.explanations
    with contextlib.ExitStack() as stack:
        for _ in range(slots.count):
            stack.enter_context(slots.hold())
        response = client.post("/explain", data=picture())
        assert client.post("/predict", data=picture()).status_code == 200
    assert (response.status_code, response.json["code"]) == (503, "explainer-busy")
    assert int(response.headers["Retry-After"]) >= 1


def test_explain_is_404_when_switched_off(make_client):
    client = make_client(max_explanations=0)
    assert client.post("/explain", data=picture()).status_code == 404


def test_explain_is_503_while_the_model_loads(loading_client):
    response = loading_client.post("/explain")
    assert (response.status_code, response.json["code"]) == (503, "not-ready")


def test_explanations_have_timings_of_their_own(client):
    response = client.post("/explain", data=encode(Image.new("RGB", (64, 48))))
    steps = [step.partition(";")[0] for step in response.headers["Server-Timing"].split(", ")]
    assert steps == ["read", "explain"]
    numbers = Scrape(client.get("/metrics").text)
    assert numbers['predictor_explain_seconds_count{model="toy",version="1"}'] == 1
    assert numbers["predictor_explanations_in_flight"] == 0
    assert numbers.sum("predictor_decode_seconds_count") == 0
    assert numbers['predictor_predictions_total{model="toy",version="1"}'] == 0
