import io
import re

import pytest

from app import create_app
from pictures import picture
from predictor.engine.classifier import Classifier
from predictor.errors import WeightsError
from predictor.settings import Settings


@pytest.fixture
def post(client):
    def send(data):
        return client.post("/", data={"file": (io.BytesIO(data), "photo.png")})

    return send


def test_the_page_names_the_model_and_has_a_form(client):
    page = client.get("/").text
    assert "<strong>toy</strong>" in page
    assert re.search(r'<form method="post" action="/" enctype="multipart/form-data"', page)


def test_the_form_alone_is_answered_with_a_page(post):
    response = post(picture("blue"))
    assert response.status_code == 200
    assert re.findall(r'class="name">(.+?)<', response.text) == [
        "blue thing",
        "red thing",
        "green thing",
    ]
    assert '<meter min="0" max="1" value="0.99' in response.text


def test_several_photos_of_the_form_are_answered_each_under_its_name(client):
    files = [(picture("blue"), "sea.png"), (b"text", "notes.txt"), (picture("red"), "<b>.png")]
    form = {"file": [(io.BytesIO(data), name) for data, name in files]}
    response = client.post("/", data=form)
    assert response.status_code == 200
    names = re.findall(r'<h2 class="file">(.+?)</h2>', response.text)
    assert names == ["sea.png", "notes.txt", "&lt;b&gt;.png"]
    assert response.text.count('class="error">This is not an image') == 1
    assert re.findall(r'class="name">(\w+) thing<', response.text)[::3] == ["blue", "red"]


def test_the_scripts_rows_can_be_pressed_only_where_something_is_explained(make_classifier):
    for places, pressable in ((1, True), (0, False)):
        classifier = make_classifier(max_explanations=places)
        page = create_app(classifier.settings, classifier).test_client().get("/").text
        assert ('<button type=button aria-pressed=false class="row">' in page) == pressable
        assert ('data-explain="/explain"' in page) == pressable


def test_the_address_the_script_asks_answers_also_for_a_model_of_few_classes(client):
    (endpoint,) = re.findall(r'data-endpoint="([^"]*)"', client.get("/").text)
    answer = client.post(endpoint, data=picture()).json
    assert len(answer["predictions"]) == 3


@pytest.mark.parametrize(
    ("data", "status", "words"), [(b"text", 415, "not an image"), (b"", 400, "0 bytes")]
)
def test_an_error_is_a_page_with_a_sentence(post, data, status, words):
    response = post(data)
    assert response.status_code == status
    assert response.mimetype == "text/html"
    assert words in response.text


def test_a_photo_that_is_too_large_is_a_page_with_a_sentence(make_classifier):
    classifier = make_classifier(max_upload_bytes=100)
    client = create_app(classifier.settings, classifier).test_client()
    response = client.post("/", data={"file": (io.BytesIO(bytes(1000)), "photo.png")})
    assert (response.status_code, response.mimetype) == (413, "text/html")


def test_while_loading_the_page_says_so_and_looks_again():
    classifier = Classifier(Settings())
    classifier.start = lambda: None
    page = create_app(classifier.settings, classifier).test_client().get("/").text
    assert "being loaded" in page
    assert '<noscript><meta http-equiv="refresh" content="2"></noscript>' in page


def test_a_form_that_comes_too_early_is_told_when_to_come_again():
    classifier = Classifier(Settings())
    classifier.start = lambda: None
    response = create_app(classifier.settings, classifier).test_client().post("/")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")


def test_a_model_that_is_not_there_is_said_without_the_cause():
    classifier = Classifier(Settings())
    classifier.start = lambda: None
    classifier.loading.set_exception(WeightsError("A path on our machine."))
    page = create_app(classifier.settings, classifier).test_client().get("/").text
    assert "not running" in page
    assert "our machine" not in page


def test_a_stand_in_is_named_on_the_page(client, classifier, monkeypatch):
    monkeypatch.setattr(type(classifier.require_model().info), "notice", "a stands in for b.")
    assert "a stands in for b." in client.get("/").text


def test_the_page_needs_nothing_from_anywhere_else(client):
    response = client.get("/")
    links = re.findall(r'(?:src|href|action|data-endpoint)="([^"]*)"', response.text)
    assert links
    assert all(link.startswith("/") for link in links)
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert not re.search(r"<script(?![^>]*src=)|style=|onclick", response.text)
    for link in links:
        if link.startswith("/static/"):
            with client.get(link) as response:
                assert response.status_code == 200


def test_the_page_is_in_nobodys_frame_but_a_notebooks_that_the_app_names(app, client):
    def ancestors():
        return client.get("/").headers["Content-Security-Policy"].rpartition("frame-ancestors ")[2]

    assert ancestors() == "'none'"
    app.config["FRAME_ANCESTORS"] = "https://notebook.example"
    assert ancestors() == "https://notebook.example"
