"""Several models on the page: one is chosen, or two answer for each photo."""

import csv

import pytest
from playwright.sync_api import expect

from chromium import PHONE, choose, expect_classes, needs_chromium
from program_files import CLASSES, ready, save_script, traced
from running_server import Server

pytestmark = needs_chromium
SMALL = "[input]\nsize = 64\nresize = 72\nmean = [0.4, 0.5, 0.6]\nstd = [0.2, 0.3, 0.4]\n"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A server of EfficientNet-Lite0 as drinks/1, and of a small TorchScript as drinks/2."""
    folder = tmp_path_factory.mktemp("models")
    for version in ("1", "2"):
        (folder / "drinks" / version).mkdir(parents=True)
    (folder / "drinks/1/model.toml").write_text('source = "efficientnet_lite0"\n')
    (folder / "drinks/2/model.toml").write_text(SMALL)
    save_script(folder / "drinks/2/model.pt", traced(ready()))
    (folder / "store.toml").write_text('[models.drinks]\nversions = "all"\ndefault = 1\n')
    server = Server(store=folder).wait_until_ready()
    yield server
    server.close()


@pytest.fixture
def open_models(browser, models):
    """Open the page of the server of several models."""
    contexts, errors = [], []

    def open_(**options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(models.url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert errors == []


def use(page, name):
    page.locator("#models a", has_text=name).click()
    expect(page.locator("#models [aria-current]")).to_have_text(name)


def card(page, name):
    return page.locator(".card", has=page.locator(".file", has_text=name))


def compare(page, name):
    page.get_by_label("Compare with").select_option(name)


def test_new_photos_get_the_chosen_model_and_cards_keep_theirs(open_models, photo):
    page = open_models()
    expect(page.locator("#model")).to_contain_text("drinks, version 1, with 1,000 classes")
    choose(page, photo)
    expect_classes(page, 5, timeout=30_000)
    use(page, "drinks/2")
    expect(page.locator("#model")).to_contain_text(f"drinks, version 2, with {CLASSES} classes")
    choose(page, photo)
    expect_classes(page, 10, timeout=30_000)
    old, new = card(page, "drinks/1: coffee.png"), card(page, "drinks/2: coffee.png")
    assert (old.locator("button.row").count(), new.locator("button.row").count()) == (5, 0)
    expect(old.locator(".tip")).to_be_visible()
    expect(new.locator(".tip")).to_be_hidden()
    for one, side in ((old, "224 × 224"), (new, "64 × 64")):
        one.locator("summary").click()
        expect(one.locator(".input")).to_contain_text(side)
        expect(one.locator(".seen")).to_contain_text(f"{side} pixels")
    old.locator("button.row").first.click()
    expect(old.locator(".tip")).to_contain_text("counts towards espresso")
    page.reload()
    expect(page.locator("#models [aria-current]")).to_have_text("drinks/2")


@pytest.mark.parametrize("options", [{}, {**PHONE, "color_scheme": "dark"}], ids=["wide", "phone"])
def test_two_versions_answer_side_by_side(open_models, three, options):
    page = open_models(**options)
    compare(page, "drinks/2")
    choose(page, *three[:2])
    expect_classes(page, 20, timeout=30_000)
    titles = [f"{model}: {one.name}" for one in three[:2] for model in ("drinks/1", "drinks/2")]
    expect(page.locator(".file")).to_have_text(titles)
    boxes = [one.bounding_box() for one in page.locator(".card").all()]
    for left, right in (boxes[:2], boxes[2:]):
        assert (left["y"] == right["y"]) is not bool(options)  # below each other on a phone
        assert (left["x"] == right["x"]) is bool(options)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_table_of_answers_names_the_model(open_models, photo, tmp_path):
    page = open_models()
    compare(page, "drinks/2")
    choose(page, photo)
    expect_classes(page, 10, timeout=30_000)
    with page.expect_download() as download:
        page.get_by_text("Save as CSV").click()
    rows = [*csv.DictReader(download.value.path().read_text().splitlines())]
    assert [row["model"] for row in rows] == ["drinks/1"] * 5 + ["drinks/2"] * 5


def test_a_model_is_not_compared_with_itself(open_models, photo):
    page = open_models()
    compare(page, "drinks/2")
    use(page, "drinks/2")
    expect(page.get_by_label("Compare with")).to_have_value("")
    choose(page, photo)
    expect_classes(page, 5, timeout=30_000)
    expect(page.locator(".card")).to_have_count(1)


def test_without_javascript_the_model_is_chosen_by_a_link(open_models, photo):
    page = open_models(java_script_enabled=False)
    expect(page.get_by_label("Compare with")).to_be_hidden()
    use(page, "drinks/2")
    choose(page, photo)
    page.get_by_text("Classify", exact=True).click()
    expect_classes(page, 5, timeout=30_000)
    expect(page.locator(".predictions")).to_contain_text("class ")
    expect(page.locator("#models [aria-current]")).to_have_text("drinks/2")
