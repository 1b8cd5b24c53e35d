"""Upload widgets for web pages, in Chromium, from a page of another origin than the server."""

import json

import pytest
from playwright.sync_api import expect

from chromium import needs_chromium
from clients.answers import need_npm_packages

pytestmark = needs_chromium


@pytest.mark.parametrize("widget", ["filepond", "dropzone", "uppy"])
@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("coffee.png", {"class_id": "n07920052", "class_name": "espresso"}),
        ("notes.txt", {"status": 415, "code": "unsupported-image"}),
        ("large.jpg", {"status": 413, "code": "request-entity-too-large"}),
    ],
)
def test_upload_widget_reads_the_answer(server, pages, browser, files, widget, file, expected):
    need_npm_packages()
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{pages}/{widget}.html#{server.url}/predict")
        (path,) = (path for path in files if path.name == file)
        page.locator("input[type=file]").first.set_input_files(path)
        expect(page.locator("output")).not_to_be_empty(timeout=60_000)
        answer = json.loads(page.locator("output").text_content())
    assert answer | expected == answer
