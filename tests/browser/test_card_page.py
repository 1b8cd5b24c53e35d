"""A card's heat map and details."""

import json
import re
import subprocess
import sys

import pytest
from PIL import Image
from playwright.sync_api import expect
from skimage import data

from chromium import choose, needs_chromium
from waiting import wait_until

pytestmark = needs_chromium


def heat_map(page):
    """The heat map's box, in percent of the photo, and how far down it is brightest (0 to 1)."""
    return page.evaluate(
        """() => {
            const canvas = document.querySelector("canvas"), {style, width, height} = canvas;
            const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
            const opacity = data.filter((_, index) => index % 4 === 3);
            return {
                box: [style.left, style.top, style.width, style.height].map(parseFloat),
                brightest: opacity.indexOf(Math.max(...opacity)) / width / height,
            };
        }"""
    )


def test_the_heat_map_shows_where_each_class_is(open_page, folder):
    """The photo is a cat above a cup of coffee."""
    both = Image.new("RGB", (600, 600))
    both.paste(Image.fromarray(data.chelsea()).resize((600, 300)), (0, 0))
    both.paste(Image.fromarray(data.coffee()).resize((600, 300)), (0, 300))
    both.save(folder / "both.png")
    page = open_page()
    choose(page, folder / "both.png")
    cat, espresso = (page.locator(".row", has_text=name) for name in ("Egyptian cat", "espresso"))
    cat.click()
    expect(page.locator(".tip")).to_contain_text("counts towards Egyptian cat")
    assert heat_map(page)["brightest"] < 0.5
    espresso.click()
    expect(page.locator(".tip")).to_contain_text("counts towards espresso")
    expect(page.locator(".tip")).to_contain_text("The model does not see the dark edges.")
    assert heat_map(page)["brightest"] > 0.5
    assert heat_map(page)["box"] == pytest.approx([6.25, 6.25, 87.5, 87.5])
    assert (cat.get_attribute("aria-pressed"), espresso.get_attribute("aria-pressed")) == (
        "false", "true"
    )  # fmt: skip
    espresso.click()
    expect(page.locator("canvas")).to_be_hidden()
    expect(espresso).to_have_attribute("aria-pressed", "false")


def test_showing_a_heat_map_does_not_move_the_pressed_class(open_page, photo):
    page = open_page(viewport={"width": 400, "height": 2000})
    choose(page, photo)
    row = page.locator(".row").nth(2)
    before = row.bounding_box()
    row.click()
    expect(page.locator("canvas")).to_be_visible()
    assert row.bounding_box() == before


def test_pressing_again_cancels_a_heat_map_that_is_being_read(open_page, photo):
    page = open_page()
    choose(page, photo)
    expect(page.locator(".row")).to_have_count(5)
    row = page.locator(".row").first
    page.evaluate(
        """() => {
            const text = Blob.prototype.text;
            Blob.prototype.text = async function () {
                await new Promise((resolve) => (window.goOn = resolve));
                return text.call(this);
            };
        }"""
    )
    row.click()
    wait_until(lambda: page.evaluate("'goOn' in window"))
    row.click()
    page.evaluate("window.goOn()")
    expect(page.locator(".tip")).to_have_text("Choose a class to see which areas support it.")
    expect(page.locator("canvas")).to_be_hidden()


@pytest.mark.parametrize("kind", ["tiff", "a TIFF named .jpg", "gif"])
def test_heat_maps_work_for_formats_that_browsers_do_not_show(open_page, folder, kind):
    name = {"a TIFF named .jpg": "disguised.jpg"}.get(kind, f"coffee.{kind}")
    image = Image.fromarray(data.coffee())
    image.save(folder / name, kind if kind == "gif" else "tiff")
    page = open_page(viewport={"width": 400, "height": 500})
    choose(page, folder / name)
    expect(page.locator(".row")).to_have_count(5)
    rows = page.locator(".row")
    for row in (rows.nth(1), rows.nth(2), rows.nth(0)):
        row.scroll_into_view_if_needed()
        before = row.bounding_box()["y"]
        row.click()
        name = row.locator(".name").text_content()
        expect(page.locator(".tip")).to_contain_text(f"the more it counts towards {name}.")
        expect(page.locator(".card img")).to_be_visible()
        expect(page.locator("canvas")).to_be_hidden()
        assert row.bounding_box()["y"] == pytest.approx(before, abs=1)


@pytest.mark.parametrize("kind", ["tiff", "webp"])
def test_the_servers_picture_is_shown_if_the_browsers_differs(open_page, folder, kind):
    """Chromium cannot show a TIFF, and does not rotate a WebP."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = folder / f"turned.{kind}"
    Image.fromarray(data.coffee()).save(path, exif=exif)
    page = open_page()
    choose(page, path)
    row = page.locator(".row").first
    row.click()
    expect(page.locator(".tip")).to_contain_text("The brighter an area")
    expect(page.locator(".card img")).to_be_visible()
    expect(page.locator("canvas")).to_be_hidden()
    size = "image => [image.naturalWidth, image.naturalHeight]"
    wait_until(lambda: page.locator(".card img").evaluate(size) == [400, 600])
    row.click()
    if kind == "tiff":
        expect(page.locator(".card img")).to_be_hidden()
        expect(page.get_by_text("No preview")).to_be_visible()
    else:
        wait_until(lambda: page.locator(".card img").evaluate(size) == [600, 400])


def test_the_details_show_what_the_model_sees(open_page, photo):
    page = open_page()
    choose(page, photo)
    expect(page.locator(".row")).to_have_count(5)
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "preview" in request.url else 0)
    for _ in range(3):  # opened, closed and opened again
        page.locator("summary").click()
    expect(page.locator(".seen")).to_have_text("224 × 224 pixels")
    seen = page.get_by_alt_text("The photo as the model sees it")
    assert seen.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [224, 224]
    assert len(asked) == 1


def test_nothing_moves_when_the_preview_arrives(open_page, photo):
    page = open_page()
    held = []
    page.route("**/preview", lambda route: held.append(route))
    choose(page, photo)
    page.locator("summary").click()
    expect(page.locator(".seen")).to_have_text("Loading …")
    link = page.get_by_role("link", name="API docs")
    wait_until(lambda: page.evaluate("true") and held)
    before = link.bounding_box()
    held[0].continue_()
    expect(page.locator(".seen")).to_have_text("224 × 224 pixels")
    assert link.bounding_box() == before


def test_an_error_of_the_preview_is_shown_and_it_can_be_tried_again(open_page, photo):
    page = open_page()
    choose(page, photo)
    expect(page.locator(".row")).to_have_count(5)
    problem = json.dumps({"detail": "The model is busy."})
    page.route("**/preview", lambda route: route.fulfill(status=500, body=problem))
    page.locator("summary").click()
    expect(page.locator(".seen")).to_have_text("The model is busy.")
    page.unroute("**/preview")
    page.locator("summary").dblclick()
    expect(page.locator(".seen")).to_have_text("224 × 224 pixels")


def test_an_error_of_explain_is_shown(open_page, photo):
    page = open_page()
    choose(page, photo)
    problem = json.dumps({"detail": "It has no feature maps."})
    page.route("**/explain*", lambda route: route.fulfill(status=501, body=problem))
    row = page.locator(".row").first
    row.click()
    expect(page.locator(".tip")).to_have_text("It has no feature maps.")
    expect(row).to_have_attribute("aria-pressed", "false")


def test_page_and_server_use_the_same_heat_map_colours(open_page):
    from predictor.images.heatmap import COLOURS, OPACITY

    source = open_page("/static/heat.js").locator("pre").text_content()
    assert json.loads(re.search(r"COLOURS = (.+);", source)[1]) == [list(c) for c in COLOURS]
    assert float(re.search(r"OPACITY = (.+);", source)[1]) == OPACITY


# The details


@pytest.mark.parametrize("name", ["coffee.png", 'it\'s "50%" of a; cup, $HOME.png'])
def test_the_copied_lines_repeat_the_request(open_page, folder, photo, name):
    (folder / name).write_bytes(photo.read_bytes())
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    choose(page, folder / name)
    page.locator("summary").click()
    copied = []
    for line in ("curl", "Python"):
        page.get_by_role("button", name=f"Copy the {line} line").click()
        expect(page.get_by_text("Copied")).to_be_visible()
        copied.append(page.evaluate("navigator.clipboard.readText()"))
        expect(page.get_by_text("Copied")).to_be_hidden()
    curl, python = copied
    assert python.startswith("import requests;")
    answers = [
        json.loads(run(["sh", "-c", curl], folder)),
        eval(run([sys.executable, "-c", python], folder)),
    ]
    for answer in answers:
        assert answer["class_name"] == "espresso"
        assert len(answer["predictions"]) == 5


def run(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_details_show_class_ids_and_timings(open_page, photo):
    page = open_page()
    choose(page, photo)
    page.locator("summary").click()
    first = page.locator(".classes tr").first.locator("td").all_text_contents()
    assert first == ["espresso", "n07920052", "967"]
    assert page.locator("th").all_text_contents() == ["Class", "WordNet id", "Index"]
    assert "The model takes 224 × 224 RGB" in page.locator(".details .input").text_content()
    text = page.locator(".time").text_content()
    (seconds, parts), steps = text.split(" s: "), r"(\w[\w ]*) (\d+) ms"
    split = {step: int(ms) for step, ms in re.findall(steps, parts)}
    assert list(split) == ["read", "decode", "queue", "inference", "network"]
    assert split["inference"] > 0
    assert sum(split.values()) == pytest.approx(float(seconds) * 1000, abs=10)
