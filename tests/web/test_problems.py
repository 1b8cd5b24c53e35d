import logging

import pytest

from conftest import store_of
from pictures import picture
from predictor.errors import DeadlineExceeded, NotReady, Overloaded, RequestTimeout
from predictor.web.problems import handle
from test_errors import tree

MEMBERS = ["type", "title", "status", "code", "detail", "request_id"]


def refused(response, status):
    assert response.status_code == status
    assert response.mimetype == "application/problem+json"
    assert list(response.json) == MEMBERS
    assert response.json["status"] == status
    return response.json["detail"]


@pytest.mark.parametrize("error", tree())
def test_every_error_becomes_a_problem_with_its_status(app, error):
    @app.get("/fails")
    def fails():
        raise error("A sentence to act on.")

    assert refused(app.test_client().get("/fails"), error.status) == "A sentence to act on."


@pytest.mark.parametrize("path", ["/static/page.js", "/docs/swagger-ui/swagger-ui.css"])
def test_static_file_of_another_version_is_a_problem(client, path):
    response = client.get(path, headers={"If-Match": '"x"'})
    assert "is not what If-Match" in refused(response, 412)
    assert "Content-Security-Policy" in response.headers
    with client.get(path) as found:
        tag = found.headers["ETag"]
    with client.get(path, headers={"If-Match": tag}) as matched:
        assert matched.status_code == 200


@pytest.mark.parametrize("error", tree())
@pytest.mark.parametrize("path", ["/predictions", "/v1", "/v2"])
def test_every_error_has_the_shape_of_its_protocol(app, error, path):
    @app.get(f"{path}/fails/here")
    def fails():
        raise error("A sentence to act on.")

    response = app.test_client().get(f"{path}/fails/here")
    assert response.status_code == error.status
    assert "A sentence to act on." in response.json.values()
    assert "title" not in response.json


@pytest.mark.parametrize(
    ("path", "members"),
    [
        ("/v2/models/x/infer", {"error": "Too slow."}),
        ("/v1/models/x:predict", {"error": "Too slow."}),
        (
            "/predictions/x",
            {"code": 408, "type": "RequestTimeoutException", "message": "Too slow."},
        ),
        ("/predict", {"status": 408, "code": "request-timeout", "detail": "Too slow."}),
        # The query is not a part of the path.
        ("/ping?x", {"message": "Too slow."}),
        ("/models/a?b", {"message": "Too slow."}),
        ("/v2?x", {"error": "Too slow."}),
        ("/?x=/v2", {"detail": "Too slow."}),
        ("/", {"detail": "Too slow."}),
    ],
)
def test_refusal_by_the_server_has_the_shape_of_its_protocol(app, path, members):
    with app.test_request_context(path, method="POST"):
        response = handle(RequestTimeout("Too slow."))
    assert response.status_code == 408
    assert response.headers["Retry-After"] == "5"
    assert response.json.items() >= members.items()
    assert ("title" in response.json) == ("detail" in members)


def test_path_with_a_longer_first_part_is_not_a_protocol(client):
    assert "POST /predict" in refused(client.get("/v2x/models"), 404)


@pytest.mark.parametrize("error", [NotReady, Overloaded])
def test_retryable_errors_have_retry_after(app, error):
    @app.get("/fails")
    def fails():
        raise error("Later.")

    assert int(app.test_client().get("/fails").headers["Retry-After"]) == error.retry_after_s


def test_unknown_path_is_404_and_names_predict(client):
    assert "POST /predict" in refused(client.get("/nothing"), 404)


def test_wrong_method_is_405_and_names_the_right_ones(client):
    response = client.get("/predict")
    assert "POST or PUT" in refused(response, 405)
    assert "POST" in response.headers["Allow"]


def test_too_large_body_is_413_with_the_limit(make_client):
    client = make_client(max_upload_bytes=1000)
    for request_ in ({"data": bytes(1001)}, {"json": {"image": "A" * 1001}}):
        assert "1,000 bytes" in refused(client.post("/predict", **request_), 413)


def test_too_many_form_fields_are_413(client):
    parts = {f"f{i}": "x" for i in range(165)}
    response = client.post("/predict", data=parts, content_type="multipart/form-data")
    assert "164 fields" in refused(response, 413)


def test_defect_is_logged_but_not_revealed(app, caplog):
    @app.get("/fails")
    def fails():
        raise ZeroDivisionError("a secret")

    with caplog.at_level(logging.ERROR):
        detail = refused(app.test_client().get("/fails"), 500)
    assert "secret" not in detail
    assert "a secret" in caplog.text


def test_probes_answer_while_all_slots_are_held(make_app):
    app = make_app(max_in_flight=1)
    client = app.test_client()
    with store_of(app).process.slots.hold():
        refused(client.post("/predict", data=picture()), 503)
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    assert client.post("/predict", data=picture()).status_code == 200


def test_late_answer_is_504(client, store, monkeypatch):
    def late(*_):
        raise DeadlineExceeded("No answer within 30 s.")

    monkeypatch.setattr(store.default.classifier, "classify", late)
    refused(client.post("/predict", data=picture()), 504)


def test_photo_is_503_unread_while_the_model_loads(loading_client):
    response = loading_client.post("/predict", data=b"whatever")
    assert "loading" in refused(response, 503)
    assert response.headers["Retry-After"]
