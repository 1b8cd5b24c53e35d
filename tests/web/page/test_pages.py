import io
import re
from concurrent.futures import wait

import pytest

from conftest import app_of
from pictures import picture
from predictor.engine.classifier import Classifier
from predictor.errors import WeightsError
from predictor.settings import Settings
from toy import ToyInfo, ToyModel


@pytest.fixture
def post(client):
    """Send the form with one file."""
    return lambda data: client.post("/", data={"file": (io.BytesIO(data), "photo.png")})


@pytest.fixture
def loading_client(loading_classifier):
    """A client of an app whose model does not finish loading."""
    return app_of(loading_classifier).test_client()


def test_the_page_shows_the_model_and_a_form(client):
    page = client.get("/").text
    assert "<strong>toy</strong>" in page
    assert re.search(r'<form method="post" action="./" enctype="multipart/form-data"', page)


def test_the_page_says_the_preprocessing_and_what_ids_are(client, loading_client, monkeypatch):
    page = client.get("/").text
    assert 'data-input="8 × 8 RGB, shorter side resized to 9, centre cut out' in page
    assert 'data-id="Id"' in page
    monkeypatch.setattr(ToyInfo, "labels", "ImageNet")
    assert 'data-id="WordNet id"' in client.get("/").text
    assert 'data-id="Id"' in loading_client.get("/").text


@pytest.mark.parametrize(("kinds", "mimetype"), [(200, "application/json"), (300, "text/html")])
def test_accept_header_over_1000_characters_is_ignored(client, kinds, mimetype):
    accept = "application/json" + ",a/b" * kinds
    assert client.get("/", headers={"Accept": accept}).mimetype == mimetype


def test_the_form_alone_is_answered_with_a_page(post):
    response = post(picture("blue"))
    assert response.status_code == 200
    assert re.findall(r'class="name">(.+?)<', response.text) == [
        "blue thing",
        "red thing",
        "green thing",
    ]
    assert '<meter min="0" max="1" value="0.99' in response.text


def test_each_photo_of_the_form_is_answered_under_its_name(client):
    files = [(picture("blue"), "sea.png"), (b"text", "notes.txt"), (picture("red"), "<b>.png")]
    form = {"file": [(io.BytesIO(data), name) for data, name in files]}
    response = client.post("/", data=form)
    assert response.status_code == 200
    names = re.findall(r'<h2 class="file">(.+?)</h2>', response.text)
    assert names == ["sea.png", "notes.txt", "&lt;b&gt;.png"]
    (error,) = re.findall(r'class="error">(.+?)<', response.text)
    assert "not an image" in error
    assert re.findall(r'class="name">(\w+) thing<', response.text)[::3] == ["blue", "red"]


@pytest.mark.parametrize(
    ("limit", "explains", "is_on"), [(1, True, True), (0, True, False), (1, False, False)]
)
def test_classes_are_buttons_only_if_the_model_is_explained(
    make_client, monkeypatch, limit, explains, is_on
):
    monkeypatch.setattr(ToyModel, "explains", explains)
    page = make_client(max_explanations=limit).get("/").text
    assert ('<button type=button aria-pressed=false class="row">' in page) == is_on
    assert ('data-explain="explain"' in page) == is_on
    assert ('<p class="tip quiet" aria-live="polite">' in page) == is_on


def test_the_scripts_url_works_for_a_model_of_three_classes(client):
    (endpoint,) = re.findall(r'data-endpoint="([^"]*)"', client.get("/").text)
    answer = client.post(f"/{endpoint}", data=picture()).json
    assert len(answer["predictions"]) == 3


@pytest.mark.parametrize(
    ("data", "status", "words"), [(b"text", 415, "not an image"), (b"", 400, "0 bytes")]
)
def test_an_error_is_a_page_with_its_reason(post, data, status, words):
    response = post(data)
    assert response.status_code == status
    assert response.mimetype == "text/html"
    assert words in response.text


def test_413_is_a_page(make_client):
    client = make_client(max_upload_bytes=100)
    response = client.post("/", data={"file": (io.BytesIO(bytes(1000)), "photo.png")})
    assert (response.status_code, response.mimetype) == (413, "text/html")


def test_while_the_model_loads_the_page_refreshes_itself(loading_client):
    page = loading_client.get("/").text
    assert "being loaded" in page
    assert '<noscript><meta http-equiv="refresh" content="2"></noscript>' in page


def test_a_form_sent_while_the_model_loads_is_503(loading_client):
    response = loading_client.post("/")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")


def test_the_page_does_not_show_why_the_model_failed_to_load():
    def fail(*_):
        raise WeightsError("A path on our machine.")

    classifier = Classifier(Settings(), load=fail)
    classifier.start()
    wait([classifier.loading], 10)
    page = app_of(classifier).test_client().get("/").text
    assert "not running" in page
    assert "our machine" not in page


def test_the_page_shows_the_notice_about_a_fallback_model(client, store, monkeypatch):
    monkeypatch.setattr(type(store.default.model.info), "notice", "a stands in for b.")
    assert "a stands in for b." in client.get("/").text


def test_the_page_needs_nothing_from_other_servers(client):
    response = client.get("/")
    links = re.findall(r'(?:src|href|action|data-endpoint)="([^"]*)"', response.text)
    assert links
    assert not [link for link in links if link.startswith("/") or ":" in link]
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert not re.search(r"<script(?![^>]*src=)|style=|onclick", response.text)
    for link in links:
        if link.startswith("static/"):
            with client.get(f"/{link}") as response:
                assert response.status_code == 200


def test_only_origins_named_by_the_app_may_frame_the_page(app, client):
    def ancestors():
        return client.get("/").headers["Content-Security-Policy"].rpartition("frame-ancestors ")[2]

    assert ancestors() == "'none'"
    app.config["FRAME_ANCESTORS"] = "https://notebook.example"
    assert ancestors() == "https://notebook.example"


BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.mark.parametrize(("token", "words"), [(None, "is required"), ("wrong", "is not known")])
def test_a_browser_without_a_valid_token_gets_a_page_that_loads_nothing(make_client, token, words):
    client = make_client(tokens=("correct-horse-battery",))
    headers = BROWSER | ({"Authorization": f"Bearer {token}"} if token else {})
    response = client.get("/", headers=headers)
    assert (response.status_code, response.mimetype) == (401, "text/html")
    assert words in response.text
    assert "WWW-Authenticate" in response.headers
    assert not re.search("src=|href=", response.text)
    (nonce,) = re.findall(r'<style nonce="(.+?)">', response.text)
    assert f"style-src 'nonce-{nonce}'" in response.headers["Content-Security-Policy"]
    assert nonce not in client.get("/", headers=headers).text
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
def test_a_program_without_a_token_gets_problem_details(make_client, accept):
    client = make_client(tokens=("correct-horse-battery",))
    response = client.get("/", headers={"Accept": accept})
    assert (response.status_code, response.mimetype) == (401, "application/problem+json")
