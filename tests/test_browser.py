"""The page in a real browser, against the real server."""

import shutil

import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright
from skimage import data

from server import Server
from waiting import wait_until

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"
)
# As root there is no sandbox; and nothing here may ask the network.
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
           "--disable-component-update", "--no-first-run"]  # fmt: skip


@pytest.fixture(scope="module")
def server():
    running = Server(model="efficientnet_lite0", max_upload_bytes=1_000_000).wait_until_ready()
    yield running
    running.close()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)


@pytest.fixture
def open_page(browser, server):
    """Open the page in a window of its own; afterwards, it must not have asked anybody else."""
    contexts = []
    asked = []

    def open_(**options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith((server.url, "blob:"))] == []


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "coffee.png"
    Image.fromarray(data.coffee()).save(path)
    return path


def expect_espresso(page):
    rows = page.locator("#predictions li")
    expect(rows).to_have_count(5)
    expect(rows.first).to_contain_text("espresso")
    expect(rows.first).to_contain_text("95.1 %")
    assert rows.first.locator("meter").evaluate("meter => meter.value") > 0.9


def test_a_chosen_photo_is_seen_and_named(open_page, photo):
    page = open_page()
    page.set_input_files("input[type=file]", photo)
    expect_espresso(page)
    assert page.locator("#photo").evaluate("image => image.naturalWidth") == 600


@pytest.mark.parametrize(
    ("event", "holder"), [("drop", "dataTransfer"), ("paste", "clipboardData")]
)
def test_a_dropped_and_a_pasted_photo_are_named(open_page, photo, event, holder):
    page = open_page()
    page.evaluate(
        """([bytes, event, holder]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "coffee.png", {type: "image/png"}));
            const Kind = event === "drop" ? DragEvent : ClipboardEvent;
            const options = {[holder]: data, bubbles: true, cancelable: true};
            document.dispatchEvent(new Kind(event, options));
        }""",
        [list(photo.read_bytes()), event, holder],
    )
    expect_espresso(page)


def test_without_javascript_the_form_does(open_page, photo):
    page = open_page(java_script_enabled=False)
    page.set_input_files("input[type=file]", photo)
    page.get_by_role("button", name="What is it?").click()
    expect(page.locator("#predictions li").first).to_contain_text("espresso")


def test_what_is_no_photo_is_said_and_the_next_one_is_named(open_page, photo, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no photo")
    page = open_page()
    page.set_input_files("input[type=file]", text)
    expect(page.locator("#error")).to_contain_text("not an image")
    page.set_input_files("input[type=file]", photo)
    expect_espresso(page)
    expect(page.locator("#error")).to_be_hidden()


def test_a_photo_too_large_is_said_before_it_is_sent(open_page):
    page = open_page()
    page.set_input_files(
        "input[type=file]",
        {"name": "x.png", "mimeType": "image/png", "buffer": bytes(1_000_001)},
    )
    expect(page.locator("#error")).to_contain_text("the server accepts 1,000,000")


def test_a_server_that_is_gone_is_said(open_page, photo):
    page = open_page()
    page.context.set_offline(True)
    page.set_input_files("input[type=file]", photo)
    expect(page.locator("#error")).to_contain_text("cannot be reached")


def test_the_page_fits_a_phone(open_page, photo):
    page = open_page(viewport={"width": 320, "height": 640})
    page.set_input_files("input[type=file]", photo)
    expect_espresso(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_the_photo_is_chosen_by_keyboard(open_page):
    page = open_page()
    choosers = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    page.keyboard.press("Tab")
    # The question's round trip also lets the browser hear that we wait for a chooser.
    assert page.evaluate("document.activeElement.name") == "file"
    page.keyboard.press("Enter")
    assert wait_until(lambda: page.evaluate("true") and choosers)


@pytest.fixture(scope="module")
def guarded():
    running = Server(model="efficientnet_lite0", tokens="correct-horse-battery").wait_until_ready()
    yield running
    running.close()


@pytest.mark.parametrize("javascript", [True, False])
def test_the_browser_asks_for_the_token_and_the_page_works(browser, guarded, photo, javascript):
    login = {"username": "anybody", "password": "correct-horse-battery"}
    with browser.new_context(http_credentials=login, java_script_enabled=javascript) as context:
        page = context.new_page()
        assert page.goto(guarded.url).status == 200
        page.set_input_files("input[type=file]", photo)
        if not javascript:
            page.get_by_role("button", name="What is it?").click()
        expect(page.locator("#predictions li").first).to_contain_text("espresso")
        assert (
            page.locator("#photo").evaluate("image => getComputedStyle(image).objectFit")
            == "contain"
        )
