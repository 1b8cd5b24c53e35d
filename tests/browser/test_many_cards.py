"""Many cards: samples, removing, the CSV file, and how the cards line up."""

import csv

import pytest
from PIL import Image
from playwright.sync_api import expect

from chromium import PHONE, choose, expect_classes, expect_espresso, needs_chromium
from paths import ROOT
from waiting import wait_until

pytestmark = needs_chromium

FOCUSED = "document.activeElement.getAttribute('aria-label')"
NAMES = ["chelsea.png", "coffee.png", "rocket.png"]


def names(page):
    return page.locator(".card .file").all_text_contents()


# Samples


@pytest.mark.parametrize("window", [{}, PHONE], ids=["desk", "phone"])
def test_the_samples_are_classified_without_a_photo_at_hand(open_page, window):
    page = open_page(**window)
    for count, name in enumerate(("cat", "espresso", "rocket"), start=1):
        page.get_by_role("group", name="sample").get_by_role("button", name=name).click()
        expect(page.locator(".card")).to_have_count(count)  # it moves the samples
    expect_classes(page, 15)
    assert names(page) == ["rocket.jpg", "espresso.jpg", "cat.jpg"]
    best = [row.text_content() for row in page.locator("li:first-child .name").all()]
    assert best[1] == "espresso"
    assert "cat" in best[2]
    page.locator(".card").nth(1).locator("summary").click()
    expect(page.locator(".save").nth(1)).to_be_visible()


def test_a_sample_that_cannot_be_loaded_is_reported(open_page):
    page = open_page()
    page.wait_for_load_state("networkidle")
    page.context.set_offline(True)
    page.route("**/samples/*", lambda route: route.abort())
    page.get_by_role("button", name="rocket").click()
    expect(page.locator("#problem")).to_have_text("The sample photo cannot be loaded.")


def test_samples_are_small_load_lazily_and_have_their_source_in_the_readme(open_page):
    page = open_page()
    shown = page.locator(".sample img")
    assert {image.get_attribute("loading") for image in shown.all()} == {"lazy"}
    files = sorted((ROOT / "static" / "samples").iterdir())
    assert len(files) == shown.count() == 3
    sources = (ROOT / "README.md").read_text().partition("## Sources")[2]
    for file in files:
        assert 20_000 < file.stat().st_size < 40_000
        assert file.stem in sources
    assert "CC0" in sources


# Removing


def test_a_removed_card_gives_the_focus_to_its_neighbour(open_page, three):
    page = open_page()
    choose(page, *three)
    expect_classes(page, 15)
    page.get_by_role("button", name="Remove coffee.png").press("Enter")
    assert names(page) == ["chelsea.png", "rocket.png"]
    assert page.evaluate(FOCUSED) == "Remove rocket.png"
    page.keyboard.press("Enter")
    assert page.evaluate(FOCUSED) == "Remove chelsea.png"
    page.keyboard.press("Enter")
    assert names(page) == []
    assert page.evaluate(FOCUSED) == "Choose photos"


def test_removing_a_card_cancels_its_request(open_page, photo):
    page = open_page()
    held, failed = [], []
    page.route("**/predict*", lambda route: held.append(route))
    page.on("requestfailed", lambda request: failed.append(request.url))
    choose(page, photo, photo, photo)
    wait_until(lambda: page.evaluate("true") and len(held) == 2)
    page.get_by_role("button", name="Clear all").click()
    wait_until(lambda: page.evaluate("true") and len(failed) == 2)
    page.unroute("**/predict*")
    choose(page, photo)
    expect_espresso(page)
    expect(page.locator(".card")).to_have_count(1)


def test_clear_all_is_offered_for_several_cards(open_page, three):
    page = open_page()
    clear = page.get_by_role("button", name="Clear all")
    choose(page, three[0])
    expect_classes(page, 5)
    expect(clear).to_be_hidden()
    choose(page, *three[1:])
    expect_classes(page, 15)
    clear.press("Enter")
    expect(page.locator(".card")).to_have_count(0)
    expect(clear).to_be_hidden()
    assert page.evaluate(FOCUSED) == "Choose photos"
    choose(page, three[1])
    expect_espresso(page)


# The CSV file


def test_the_csv_file_has_the_rows_of_the_command_line(open_page, folder, photo):
    (folder / 'a "b", c.txt').write_text("not a photo")
    page = open_page()
    choose(page, photo, folder / 'a "b", c.txt')
    expect_classes(page, 5)
    expect(page.locator(".error:visible")).to_have_count(1)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    with download.value.path().open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = ["file", "class_index", "class_id", "class_name", "probability", "error"]
    assert list(rows[0]) == columns
    assert [row["file"] for row in rows] == ["coffee.png"] * 5 + ['a "b", c.txt']
    assert rows[0]["class_name"] == "espresso"
    assert float(rows[0]["probability"]) == pytest.approx(0.951, abs=0.01)
    assert "not an image" in rows[5]["error"]


# How they line up


def test_cards_of_a_row_line_up_whatever_their_pictures_and_names(open_page, folder, photo):
    image = Image.open(photo)
    image.resize((1200, 150)).save(folder / "a-panorama-with-a-very-long-name-of-a-phone's-app.jpg")
    image.rotate(90, expand=True).save(folder / "portrait.jpg")
    image.resize((60, 40)).save(folder / "small.gif")
    image.save(folder / "unseen.tif")
    page = open_page(viewport={"width": 1280, "height": 900})
    files = ("a-panorama-with-a-very-long-name-of-a-phone's-app.jpg", "portrait.jpg", "unseen.tif")
    choose(page, *(folder / name for name in files), folder / "small.gif")
    expect_classes(page, 20)
    tops = page.evaluate(
        """() => [".stage", ".title", ".row", "summary"].map((part) =>
            [...document.querySelectorAll(".card")].slice(0, 3).map((card) =>
                Math.round(card.querySelector(part).getBoundingClientRect().top)))"""
    )
    assert [len(set(row)) for row in tops] == [1, 1, 1, 1]
    assert len({round(box["height"]) for box in boxes(page, ".stage")}) == 1
    for stage, picture in zip(boxes(page, ".stage"), boxes(page, ".stage img"), strict=True):
        assert picture is None or picture["height"] < stage["height"] + 1
    expect(page.get_by_text("No preview")).to_have_count(4)
    expect(page.locator(".blank:visible")).to_have_count(1)


def boxes(page, selector):
    return [element.bounding_box() for element in page.locator(selector).all()]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("width", [360, 1280, 2560])
def test_the_heading_is_in_line_with_the_cards(open_page, three, count, width):
    page = open_page(viewport={"width": width, "height": 900})
    choose(page, *three[:count])
    expect_classes(page, 5 * count)
    lefts = {round(boxes(page, part)[0]["x"]) for part in ("h1", "#model p", ".drop", ".card")}
    assert len(lefts) == 1
    rights = [round(box["x"] + box["width"]) for box in boxes(page, ".drop, .card")]
    assert max(rights) == rights[0]
    assert rights[0] in rights[1:]
