"""The page at /docs: Swagger UI as it comes with the installation, under our policy."""

import pytest
from playwright.sync_api import expect

from chromium import needs_chromium
from running_server import Server

pytestmark = needs_chromium
TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def guarded():
    running = Server(model="efficientnet_lite0", tokens=TOKEN).wait_until_ready()
    yield running
    running.close()


def try_out(page, tag, operation, photo):
    """Send the photo as the body of an operation; its answer."""
    block = page.locator(f"#operations-{tag}-{operation}")
    block.locator(".opblock-summary-control").click()
    block.get_by_label("Request content type").select_option("application/octet-stream")
    block.locator("input[type=file]").set_input_files(photo)
    block.locator("button.execute").click()
    answer = block.locator(".live-responses-table")
    expect(answer.locator("tbody .response-col_status")).to_have_text("200")
    return answer


def test_the_docs_show_every_operation(open_page):
    page = open_page("/docs")
    expect(page.locator("h1")).to_contain_text("A photo in, the right class out")
    described = page.evaluate("fetch('openapi.json').then(r => r.json()).then(d => d.paths)")
    methods = [method for item in described.values() for method in item.keys() - {"parameters"}]
    expect(page.locator(".opblock")).to_have_count(len(methods))


def test_the_docs_ask_nobody_but_this_server(open_page, site):
    """What the fixture holds of every page, of this one with nothing but its own files."""
    page = open_page("/healthz")
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message) if message.type == "error" else None)
    page.goto(f"{site.url}/docs", wait_until="networkidle")
    assert len(asked) >= 5
    assert [url for url in asked if not url.startswith(site.url)] == []
    assert [message.text for message in said] == []


def test_a_photo_is_tried_out_with_a_click(open_page, photo):
    answer = try_out(open_page("/docs"), "photos", "predict", photo)
    expect(answer).to_contain_text('"class_name": "espresso"')


def test_a_heat_map_that_is_tried_out_is_shown(open_page, photo):
    picture = try_out(open_page("/docs"), "photos", "explain", photo).locator("img")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") == 600


def test_the_browsers_own_login_is_enough_to_try_it_out(browser, guarded, photo):
    context = browser.new_context(http_credentials={"username": "me", "password": TOKEN})
    page = context.new_page()
    page.goto(f"{guarded.url}/docs")
    answer = try_out(page, "photos", "predict", photo)
    expect(answer).to_contain_text('"class_name": "espresso"')
    context.close()


def test_a_link_on_the_page_leads_there(open_page):
    page = open_page()
    page.get_by_role("link", name="For programs").click()
    expect(page).to_have_title("What can be asked here")
    expect(page.locator(".opblock").first).to_be_visible()
