import json
import logging
import re

import pytest

from pictures import picture
from predictor.errors import Overloaded
from predictor.logs import JSONFormatter, TextFormatter


@pytest.fixture
def lines(caplog):
    """The lines of the requests so far, as JSON has them."""
    caplog.set_level(logging.INFO)

    def read():
        made = [
            JSONFormatter().format(r)
            for r in caplog.records
            if r.name == "predictor.web.request_log"
        ]
        return [json.loads(line) for line in made]

    return read


def test_prediction_is_one_line_with_the_time_of_each_step(client, lines):
    response = client.post("/predict?top_k=2", data=picture("green"))
    (line,) = lines()
    assert (line["method"], line["path"], line["status"]) == ("POST", "/predict", 200)
    assert line["bytes"] == len(response.data)
    assert line["class_id"] == response.json["class_id"]
    assert line["request_id"] == response.headers["X-Request-ID"]
    steps = [line[f"{step}_ms"] for step in ("read", "decode", "queue", "inference")]
    assert 0 < sum(steps) <= line["duration_ms"] + 0.02  # each is rounded


def test_text_format_is_one_readable_line(client, caplog):
    caplog.set_level(logging.INFO)
    client.post("/predict", data=picture("green"), headers={"X-Request-ID": "mine"})
    (text,) = [
        TextFormatter().format(r) for r in caplog.records if r.name == "predictor.web.request_log"
    ]
    step = r"[\d.]+"
    assert re.search(
        rf" INFO POST /predict 200, 55 bytes, {step} ms \(read {step}, decode {step}, queue {step},"
        rf" inference {step}\), n00000001, toy/1, mine$",
        text,
    ), text


def test_line_names_the_error_of_each_photo(client, lines):
    client.post("/predict", json={"images": ["%%", "AAAA"]})
    (line,) = lines()
    assert (line["status"], line["code"]) == (200, "bad-request,unsupported-image")
    assert "class_id" not in line


@pytest.mark.parametrize(
    ("code", "status", "level"),
    [
        ("bad-request", 400, "INFO"),
        ("overloaded", 503, "WARNING"),
        ("internal-error", 500, "ERROR"),
    ],
)
def test_error_line_has_its_code_and_level(app, lines, code, status, level):
    @app.get("/fails")
    def fails():
        if status == 500:
            raise ZeroDivisionError
        raise Overloaded("Later.")

    app.test_client().get("/fails") if status >= 500 else app.test_client().post("/predict")
    (line,) = lines()
    assert (line["code"], line["status"], line["level"]) == (code, status, level)


def test_query_headers_and_body_are_not_logged(client, lines, caplog):
    secrets = {"Authorization": "Bearer s3cret", "Cookie": "s3cret", "Referer": "http://s3cret/"}
    client.post("/predict?token=s3cret", data=b"s3cret", headers=secrets)
    assert len(lines()) == 1
    assert "s3cret" not in caplog.text


def test_path_cannot_forge_a_log_line(client, caplog):
    caplog.set_level(logging.INFO)
    client.get("/a%0A2026-01-01%20INFO%20forged%1B%5B2K")
    (record,) = [r for r in caplog.records if r.name == "predictor.web.request_log"]
    assert "\n" in record.getMessage()
    for formatter in (TextFormatter(), JSONFormatter()):
        assert formatter.format(record).isprintable()


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_are_logged_only_when_they_fail(client, store, lines, path):
    client.get(path)
    assert lines() == []
    store.close()
    client.get(path)
    assert [line["status"] for line in lines()] == [500]


@pytest.mark.parametrize("given", ["a", "7f-3.A_b:c/d+e=@", "x" * 128])
def test_valid_request_id_is_kept(client, given):
    response = client.get("/healthz", headers={"X-Request-ID": given})
    assert response.headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", [None, "", "x" * 129, "a b", "<i>", "é", "a;b", '"', "a\x1b[2K"])
def test_invalid_request_id_is_replaced(client, given):
    headers = {} if given is None else {"X-Request-ID": given}
    ids = [client.get("/healthz", headers=headers).headers["X-Request-ID"] for _ in range(2)]
    assert all(re.fullmatch("[0-9a-f]{32}", id) for id in ids)
    assert ids[0] != ids[1]


@pytest.mark.parametrize("path", ["/", "/readyz", "/static/style.css", "/nothing"])
def test_every_response_has_a_request_id(client, path):
    with client.get(path) as response:
        assert response.headers["X-Request-ID"]


def test_error_body_has_the_request_id(client):
    response = client.post("/predict", data=b"text", headers={"X-Request-ID": "mine"})
    assert response.json["request_id"] == "mine"


def test_page_shows_the_request_id_only_with_an_error(client):
    headers = {"X-Request-ID": "mine"}
    assert "<code>mine</code>" in client.post("/", headers=headers).text
    assert "mine" not in client.get("/", headers=headers).text


@pytest.mark.parametrize("name", ["If-Modified-Since", "If-Unmodified-Since", "If-Range"])
@pytest.mark.parametrize(
    "date", ["01 Jan 99999999999 00:00:00 GMT", "01 Jan 2020 00:00 +9999999999"]
)
def test_a_date_that_overflows_is_ignored(client, name, date):
    headers = {name: f"Mon, {date}", "Range": "bytes=0-1"}
    with client.get("/static/style.css", headers=headers) as response:
        assert response.status_code in (200, 206)


def test_defect_is_logged_with_traceback_and_request_id(app, caplog):
    @app.get("/fails")
    def fails():
        raise ZeroDivisionError

    app.test_client().get("/fails", headers={"X-Request-ID": "mine"})
    (record,) = [r for r in caplog.records if r.exc_info]
    assert "/fails failed, mine" in record.getMessage()


def test_response_has_the_time_of_each_step(client):
    timing = client.post("/predict", data=picture()).headers["Server-Timing"]
    assert re.sub(r"[\d.]+", "N", timing) == (
        "read;dur=N, decode;dur=N, queue;dur=N, inference;dur=N"
    )
    assert "Server-Timing" not in client.get("/healthz").headers
