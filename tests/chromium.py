"""Fixtures and steps for the tests that open the page in Chromium."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from skimage import data

from running_server import Server

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"
)
# Chromium has no sandbox as root. It must not use the network. The camera shows a test picture.
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
           "--disable-component-update", "--no-first-run", "--use-fake-device-for-media-stream",
           "--use-fake-ui-for-media-stream"]  # fmt: skip
PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True
}  # fmt: skip
OpenPage = Callable[..., Page]
TOKEN = "correct-horse-battery"
# In milliseconds; longer than the defaults, 5 and 30 s: other tests use the processors, too.
EXPECT_MS, ACTION_MS = 20_000, 120_000
expect.set_options(timeout=EXPECT_MS)
# Small limits, so that photos over them are made quickly.
MAX_BYTES, MAX_PIXELS = 1_000_000, 3_000_000


@pytest.fixture(scope="session")
def site() -> Iterator[Server]:
    """A server with small limits, which may stand behind a proxy."""
    limits = {"max_upload_bytes": MAX_BYTES, "max_pixels": MAX_PIXELS}
    running = Server(model="efficientnet_lite0", trusted_proxies=1, **limits).wait_until_ready()
    yield running
    running.close()


@pytest.fixture(scope="session")
def guarded() -> Iterator[Server]:
    """A server that requires a token."""
    running = Server(model="efficientnet_lite0", tokens=TOKEN).wait_until_ready()
    yield running
    running.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)


@pytest.fixture
def open_page(browser: Browser, site: Server) -> Iterator[OpenPage]:
    """Open a page in a new window; it must not use other servers or violate its own policy."""
    contexts, requested, errors = [], [], []

    def open_(path: str = "/", **options: Any) -> Page:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(ACTION_MS)
        page.on("request", lambda request: requested.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: errors.append(m.text) if "Policy" in m.text else None)
        page.goto(site.url + path)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert [url for url in requested if not url.startswith((site.url, "blob:"))] == []
    assert errors == []


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the photos to choose."""
    return tmp_path_factory.mktemp("photos")


@pytest.fixture(scope="session")
def photo(folder: Path) -> Path:
    path = folder / "coffee.png"
    Image.fromarray(data.coffee()).save(path)
    return path


@pytest.fixture(scope="session")
def three(folder: Path, photo: Path) -> tuple[Path, Path, Path]:
    """Three photos, with the espresso in the middle."""
    for name in ("chelsea", "rocket"):
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")
    return folder / "chelsea.png", photo, folder / "rocket.png"


def choose(page: Page, *photos: Path) -> None:
    page.set_input_files("input[name=file]", photos)


def expect_classes(page: Page, count: int, **options: Any) -> None:
    """Wait until all cards together show this number of classes."""
    expect(page.locator(".predictions li")).to_have_count(count, **options)


def expect_espresso(page: Page, card: int = 0) -> None:
    rows = page.locator(".card").nth(card).locator(".predictions li")
    expect(rows).to_have_count(5)
    expect(rows.first).to_contain_text("espresso")
    expect(rows.first).to_contain_text("95.1 %")
    assert rows.first.locator("meter").evaluate("meter => meter.value") > 0.9


def copy_sent(page: Page) -> Image.Image:
    """The photo as it was sent, if it is not a file on the disk."""
    page.locator("summary").click()
    with page.expect_download() as download:
        page.get_by_text("Save the photo").click()
    return Image.open(io.BytesIO(download.value.path().read_bytes()))


def try_out(page: Page, tag: str, operation: str, photo: Path) -> Locator:
    """Send a photo as the body of an operation at /docs; return the element with the response."""
    block = page.locator(f"#operations-{tag}-{operation}")
    block.locator(".opblock-summary-control").click()
    block.get_by_label("Request content type").select_option("application/octet-stream")
    block.locator("input[type=file]").set_input_files(photo)
    block.locator("button.execute").click()
    answer = block.locator(".live-responses-table")
    expect(answer.locator("tbody .response-col_status")).to_have_text("200")
    return answer
