"""The page's looks, accessibility and size."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from chromium import PHONE, choose, expect_classes, needs_chromium

pytestmark = needs_chromium


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("window", [{}, PHONE], ids=["desk", "phone"])
def test_axe_reports_no_accessibility_violation(open_page, three, folder, scheme, window):
    (folder / "notes.txt").write_text("not a photo")
    page = open_page(color_scheme=scheme, reduced_motion="reduce", **window)
    choose(page, *three, folder / "notes.txt")
    expect_classes(page, 15)
    page.locator(".row").first.click()
    expect(page.locator("canvas").first).to_be_visible()
    page.locator("summary").first.click()
    report = Axe().run(page)
    assert report.response["violations"] == [], report.generate_report()


def test_the_page_follows_the_colour_scheme(open_page):
    def brightness(scheme):
        colour = open_page(color_scheme=scheme).evaluate(
            "getComputedStyle(document.body).backgroundColor"
        )
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    assert brightness("dark") < 120 < 600 < brightness("light")


def test_reduced_motion_stops_all_animations(open_page, photo):
    page = open_page(reduced_motion="reduce")
    page.route("**/predict*", lambda route: None)
    choose(page, photo)
    expect(page.locator(".busy")).to_be_visible()
    assert page.evaluate("document.getAnimations().length") == 0
    moving = open_page()
    moving.route("**/predict*", lambda route: None)
    choose(moving, photo)
    expect(moving.locator(".busy img")).to_be_visible()
    assert moving.evaluate("document.getAnimations().length") > 0


@pytest.mark.parametrize("width", [320, 768, 1280, 2560])
def test_the_page_fits_screens_of_320_to_2560_pixels(open_page, three, width):
    page = open_page(viewport={"width": width, "height": 800})
    choose(page, *three)
    expect_classes(page, 15)
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_with_all_its_files_but_the_samples_is_under_60_kb(open_page, site):
    page = open_page("/healthz")
    sizes = {}
    page.on("response", lambda response: sizes.update({response.url: len(response.body())}))
    page.goto(site.url, wait_until="networkidle")
    own = [size for url, size in sizes.items() if "/samples/" not in url]
    assert len(own) >= 9
    assert sum(own) < 60_000
