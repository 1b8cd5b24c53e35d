"""Upload widgets for web pages, in Chromium, from a page of another origin than the server."""

import pytest
from playwright.sync_api import expect

from chromium import needs_chromium
from clients.answers import need_npm_packages

pytestmark = needs_chromium


@pytest.mark.parametrize("widget", ["filepond", "dropzone", "uppy"])
@pytest.mark.parametrize(
    ("file", "answer"),
    [("coffee.png", "espresso"), ("notes.txt", "not an image"), ("large.jpg", "20,971,520 bytes")],
)
def test_upload_widget_reads_the_answer(server, pages, browser, files, widget, file, answer):
    need_npm_packages()
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{pages}/{widget}.html#{server.url}/predict")
        (path,) = (path for path in files if path.name == file)
        page.locator("input[type=file]").first.set_input_files(path)
        expect(page.locator("output")).to_contain_text(answer, timeout=60_000)
