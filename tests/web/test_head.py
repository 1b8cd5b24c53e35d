"""What the server asks the app before it receives a body, and what the app answers."""

import io
import json
import re

import pytest
from werkzeug.test import EnvironBuilder

from conftest import store_of
from pictures import picture
from predictor.engine.admission import Slots
from predictor.environ import ADMITTED, ERROR, PLACE
from predictor.errors import Evicted, Overloaded
from predictor.setting_parsers import parse_rates

TOKEN = "correct-horse-battery"


def ask(app, path="/predict", method="POST", **options):
    """The answer to a head as (status, headers, body), or None; and the environ."""
    environ = EnvironBuilder(path, method=method, **options).get_environ()
    started = []
    pieces = app.extensions["head"](environ, lambda *args: started.append(args))
    if pieces is None:
        return None, environ
    [(status, headers)] = started
    return (int(status.split()[0]), dict(headers), b"".join(pieces).decode()), environ


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/predict", "prediction"), ("/", "prediction"), ("/predictions/toy", "prediction"),
        ("/models/toy/invoke", "prediction"), ("/invocations", "prediction"),
        ("/preview", "prediction"),
        ("/v1/models/toy:predict", "prediction"), ("/v2/models/toy/infer", "prediction"),
        ("/explain", "explanation"), ("/explanations/toy", "explanation"),
        ("/v1/models/toy:explain", "explanation"),
    ],
)  # fmt: skip
def test_every_path_that_runs_the_model_needs_a_slot(app, path, kind):
    store = store_of(app)
    slots = {"prediction": store.process.slots, "explanation": store.process.explanations}
    answer, environ = ask(app, path)
    assert answer is None
    environ[PLACE].take()
    assert slots[kind].held == 1


@pytest.mark.parametrize("path", ["/predict", "/", "/v2/models/toy/infer", "/predictions/toy"])
def test_without_a_free_slot_the_head_is_answered_503(make_app, path):
    app = make_app(max_in_flight=1)
    with store_of(app).process.slots.hold():
        (status, headers, body), _ = ask(app, path)
    assert status == 503
    assert headers["Retry-After"] == "1"
    assert headers["X-Request-ID"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "The server is at its limit of 1 requests in progress. Retry later." in body
    assert ("<html" in body) is (path == "/")
    assert store_of(app).metrics.readings().total(
        "predictor_rejected_total", reason="overloaded", model="toy", version="1") == 1  # fmt: skip


def test_a_loading_model_needs_no_body(make_loading_app):
    (status, _, body), _ = ask(make_loading_app())
    assert (status, json.loads(body)["code"]) == (503, "not-ready")


def test_an_open_question_is_left_to_the_app(app):
    for path, method in (("/", "GET"), ("/metrics", "GET"), ("/predictions/toy", "OPTIONS")):
        answer, environ = ask(app, path, method)
        assert answer is None
        assert environ[ADMITTED]
        assert PLACE not in environ


def test_the_app_continues_the_request_whose_head_was_checked(app, monkeypatch):
    made = []
    create = app.create_url_adapter
    monkeypatch.setattr(app, "create_url_adapter", lambda r: made.append(r) or create(r))
    _, environ = ask(app, data=picture("green"))
    environ[PLACE].take()
    record, headers = environ[ADMITTED].request.record, {}
    body = b"".join(app(environ, lambda status, pairs, _=None: headers.update(pairs)))
    assert json.loads(body)["class_name"] == "green_thing"
    assert headers["X-Request-ID"] == record.id
    assert len([r for r in made if r]) == 1  # one context, and one address looked up, for both
    assert environ[ADMITTED].request.record.began > record.began  # the body took its time


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/ping", "/v2/health/live"])
def test_a_probe_is_answered_at_once(app, path):
    (status, _, _), _ = ask(app, path, "GET")
    assert status == 200


@pytest.mark.parametrize(
    ("path", "method", "length", "status", "code"),
    [
        ("/nothing", "POST", 5, 404, "not-found"),
        ("/predict", "DELETE", 5, 405, "method-not-allowed"),
        ("/predict", "POST", 1001, 413, "request-entity-too-large"),
    ],
)
def test_a_request_that_cannot_be_answered_needs_no_body(
    make_app, path, method, length, status, code
):
    app = make_app(max_upload_bytes=1000)
    (found, _, body), _ = ask(app, path, method, content_length=length)
    assert (found, json.loads(body)["code"]) == (status, code)


@pytest.mark.parametrize(("method", "path"), [("GET", "/api-description"), ("OPTIONS", "/predict")])
def test_a_body_where_none_is_expected_is_small(app, method, path):
    (status, _, body), _ = ask(app, path, method, content_length=65_537)
    assert status == 413
    assert "At this address at most 65,536 bytes" in body
    assert ask(app, path, method, content_length=65_536)[0] is None


def test_the_guards_run_once_for_a_request(make_app):
    """A second run would count it twice for the rate limit."""
    app = make_app(rate_limit=parse_rates("1/minute"), tokens=(TOKEN,))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer, environ = ask(app, headers=headers)
    assert answer is None
    environ[PLACE].take()
    environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(picture()), str(len(picture()))
    started = []
    body = b"".join(app(environ, lambda *args: started.append(args)))
    assert (started[0][0], json.loads(body)["class_name"]) == ("200 OK", "red_thing")
    (status, _, _), _ = ask(app, headers=headers)
    assert status == 429


def test_a_token_is_required_before_the_address_is_known(make_app):
    (status, headers, _), _ = ask(make_app(tokens=(TOKEN,)), "/nothing")
    assert status == 401
    assert "realm" in headers["WWW-Authenticate"]


def test_the_client_behind_a_proxy_is_known(make_app):
    app = make_app(rate_limit=parse_rates("1/minute"), trusted_proxies=1)
    found = [
        ask(app, headers={"X-Forwarded-For": client})[0] is None
        for client in ("192.0.2.1", "192.0.2.2", "192.0.2.1")
    ]
    assert found == [True, True, False]


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("/predict", '"code": "evicted"'),
        ("/predictions/toy", '"type": "RequestTimeoutException"'),
        ("/v2/models/toy/infer", '^{"error": "The client was slow'),
    ],
)
def test_an_error_of_the_server_has_the_shape_of_its_path(app, path, pattern):
    error = Evicted("The client was slow.")
    (status, headers, body), _ = ask(app, path, environ_overrides={ERROR: error})
    assert (status, headers["Retry-After"]) == (408, "5")
    assert re.search(pattern, body)


def test_a_slot_that_is_taken_meanwhile_is_a_503():
    slots = Slots(1)
    slots.take()
    with pytest.raises(Overloaded):
        slots.take()
    slots.release()
    slots.take()
