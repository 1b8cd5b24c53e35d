"""The ways to choose photos: by mouse, phone or keyboard, without JavaScript, with a token."""

import re

import pytest
from playwright.sync_api import expect

from chromium import (
    PHONE,
    TOKEN,
    choose,
    copy_sent,
    expect_classes,
    expect_espresso,
    needs_chromium,
)
from waiting import wait_until

pytestmark = needs_chromium


def test_a_chosen_photo_is_shown_and_classified(open_page, photo):
    page = open_page()
    choose(page, photo)
    expect_espresso(page)
    assert page.locator(".card img").evaluate("image => image.naturalWidth") == 600
    expect(page.locator("#live")).to_have_text("coffee.png: espresso, 95.1 %")


def test_cards_keep_their_order_with_newer_photos_on_top(open_page, three):
    page = open_page()
    choose(page, *three)
    expect_classes(page, 15)
    choose(page, three[0])
    expect_classes(page, 20)
    names = page.locator(".card .file").all_text_contents()
    assert names == ["chelsea.png", "chelsea.png", "coffee.png", "rocket.png"]
    expect_espresso(page, card=2)


@pytest.mark.parametrize(
    ("event", "holder"), [("drop", "dataTransfer"), ("paste", "clipboardData")]
)
def test_dropped_and_pasted_photos_are_classified(open_page, photo, event, holder):
    page = open_page()
    give(page, event, holder, photo.read_bytes())
    expect_espresso(page)
    expect(page.locator("#problem")).to_be_hidden()
    page.locator("summary").click()
    expect(page.locator(".save")).to_be_visible(visible=event == "paste")


@pytest.mark.parametrize(
    ("event", "holder", "message"),
    [("drop", "dataTransfer", "No file"), ("paste", "clipboardData", "no photo")],
)
def test_dropping_or_pasting_no_file_shows_a_message(open_page, event, holder, message):
    page = open_page()
    give(page, event, holder, None)
    expect(page.locator("#problem")).to_contain_text(message)


def give(page, event, holder, photo):
    page.evaluate(
        """([bytes, event, holder]) => {
            const data = new DataTransfer();
            if (bytes) data.items.add(new File([new Uint8Array(bytes)], "coffee.png"));
            const Kind = event === "drop" ? DragEvent : ClipboardEvent;
            const options = {[holder]: data, bubbles: true, cancelable: true};
            document.dispatchEvent(new Kind(event, options));
        }""",
        [photo and list(photo), event, holder],
    )


def test_the_camera_takes_a_photo(open_page):
    page = open_page(permissions=["camera"])
    page.get_by_role("button", name="Take a photo").dblclick()
    wait_until(lambda: page.evaluate("document.querySelector('video').videoWidth"))
    page.get_by_role("button", name="Take the photo").click()
    expect_classes(page, 5)
    assert re.fullmatch(r"camera-[\d-]+\.jpg", page.locator(".card .file").text_content())
    assert page.locator(".card img").evaluate("image => image.naturalWidth") > 0
    assert copy_sent(page).format == "JPEG"


@pytest.mark.parametrize("way", ["Escape", "Cancel"])
def test_cancelling_turns_the_camera_off(open_page, way):
    page = open_page(permissions=["camera"])
    page.get_by_role("button", name="Take a photo").click()
    wait_until(lambda: page.evaluate("document.querySelector('video').videoWidth"))
    page.evaluate("window.track = document.querySelector('video').srcObject.getTracks()[0]")
    if way == "Escape":
        page.keyboard.press("Escape")
    else:
        page.get_by_role("button", name="Cancel").click()
    wait_until(lambda: page.evaluate("window.track.readyState") == "ended")
    expect(page.locator(".card")).to_have_count(0)


def test_a_camera_error_is_shown(open_page):
    page = open_page()
    page.evaluate(
        """() => {
            const error = new DOMException("Permission denied", "NotAllowedError");
            navigator.mediaDevices.getUserMedia = () => Promise.reject(error);
        }"""
    )
    page.get_by_role("button", name="Take a photo").click()
    expect(page.locator("#problem")).to_contain_text("cannot be used: Permission denied.")


@pytest.mark.parametrize("kinds", [[], ["audioinput"]])
def test_without_a_camera_none_is_offered(open_page, kinds):
    page = open_page()
    found = f"Promise.resolve({[{'kind': kind} for kind in kinds]})"
    page.add_init_script(f"navigator.mediaDevices.enumerateDevices = () => {found}")
    page.reload(wait_until="networkidle")
    expect(page.get_by_text("Choose photos")).to_be_visible()
    expect(page.locator("#camera")).to_be_hidden()


def test_a_phone_opens_its_own_camera_app(open_page, photo):
    page = open_page(**PHONE)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Take a photo").tap()
    assert chooser.value.element.get_attribute("capture") == "environment"
    chooser.value.set_files(photo)
    expect_espresso(page)


def test_without_javascript_the_form_takes_several_photos(open_page, three):
    page = open_page(java_script_enabled=False)
    page.get_by_label("Choose photos").set_input_files(three)
    page.get_by_role("button", name="Classify").click()
    expect_classes(page, 15)
    expect_espresso(page, card=1)
    assert page.locator(".card .file").all_text_contents() == [photo.name for photo in three]


# Whole sessions


def test_a_phone_user_classifies_and_explains_three_photos(open_page, three):
    page = open_page(**PHONE)
    with page.expect_file_chooser() as chooser:
        page.get_by_text("Choose photos").tap()
    assert chooser.value.is_multiple()
    chooser.value.set_files(three)
    expect_classes(page, 15)
    page.locator(".card").nth(1).get_by_role("button", name="espresso").tap()
    expect(page.locator(".card").nth(1).locator("canvas")).to_be_visible()
    for summary in page.locator("summary").all():
        summary.tap()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


NAME = """(({textContent, ariaLabel, firstChild}) =>
    ariaLabel ?? (textContent || firstChild.alt))(document.activeElement)"""


def test_a_keyboard_user_classifies_and_explains_three_photos(open_page, three):
    page = open_page()
    choosers = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    page.keyboard.press("Tab")
    # This round trip also lets the browser process our subscription to the file chooser.
    assert page.evaluate("document.activeElement.name") == "file"
    page.keyboard.press("Enter")
    wait_until(lambda: page.evaluate("true") and choosers)
    choosers[0].set_files(three)
    expect_classes(page, 15)
    samples, bar = ["cat", "espresso", "rocket"], ["Save as CSV", "Clear all"]
    for label in ["Take a photo", *samples, *bar, "Remove chelsea.png", "Tiger cat"]:
        page.keyboard.press("Tab")
        assert label.lower() in page.evaluate(NAME).lower()
    page.keyboard.press("Enter")
    expect(page.locator("canvas").first).to_be_visible()
    for _ in range(5):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".details").first).to_have_attribute("open", "")


@pytest.mark.parametrize("javascript", [True, False])
def test_the_page_works_with_a_token_as_the_password(browser, guarded, photo, javascript):
    login = {"username": "anybody", "password": TOKEN}
    with browser.new_context(http_credentials=login, java_script_enabled=javascript) as context:
        page = context.new_page()
        assert page.goto(guarded.url).status == 200
        choose(page, photo)
        if not javascript:
            page.get_by_role("button", name="Classify").click()
        expect_espresso(page)
        if javascript:
            page.locator("summary").click()
            expect(page.locator(".curl code")).to_contain_text('"Authorization: Bearer $TOKEN"')
            expect(page.locator(".python code")).to_contain_text('os.environ["TOKEN"]')
