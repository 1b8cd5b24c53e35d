"""How photos come to the page, and that everybody can bring them."""

import re

import pytest
from playwright.sync_api import expect

from chromium import PHONE, choose, copy_sent, expect_espresso, needs_chromium
from running_server import Server
from waiting import wait_until

pytestmark = needs_chromium


def test_a_chosen_photo_is_seen_and_named(open_page, photo):
    page = open_page()
    choose(page, photo)
    expect_espresso(page)
    assert page.locator("img").evaluate("image => image.naturalWidth") == 600
    expect(page.locator("#live")).to_have_text("coffee.png: espresso, 95.1 %")


def test_many_photos_are_cards_in_their_order_and_the_next_ones_come_on_top(open_page, three):
    page = open_page()
    choose(page, *three)
    expect(page.locator(".predictions li")).to_have_count(15)
    choose(page, three[0])
    expect(page.locator(".predictions li")).to_have_count(20)
    names = page.locator(".card .file").all_text_contents()
    assert names == ["chelsea.png", "chelsea.png", "coffee.png", "rocket.png"]
    expect_espresso(page, card=2)


@pytest.mark.parametrize(
    ("event", "holder"), [("drop", "dataTransfer"), ("paste", "clipboardData")]
)
def test_dropped_and_pasted_photos_are_named(open_page, photo, event, holder):
    page = open_page()
    give(page, event, holder, photo.read_bytes())
    expect_espresso(page)
    expect(page.locator("#problem")).to_be_hidden()
    page.locator("summary").click()
    expect(page.locator(".save")).to_be_visible(visible=event == "paste")


@pytest.mark.parametrize(
    ("event", "holder", "words"),
    [("drop", "dataTransfer", "no file"), ("paste", "clipboardData", "no photo")],
)
def test_what_is_dropped_or_pasted_and_is_no_file_is_said(open_page, event, holder, words):
    page = open_page()
    give(page, event, holder, None)
    expect(page.locator("#problem")).to_contain_text(words)


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
    expect(page.locator(".predictions li")).to_have_count(5)
    assert re.fullmatch(r"camera-[\d-]+\.jpg", page.locator(".card .file").text_content())
    assert page.locator("img").evaluate("image => image.naturalWidth") > 0
    assert copy_sent(page).format == "JPEG"


@pytest.mark.parametrize("leave", ["Escape", "Cancel"])
def test_the_camera_goes_off_when_no_photo_is_wanted(open_page, leave):
    page = open_page(permissions=["camera"])
    page.get_by_role("button", name="Take a photo").click()
    wait_until(lambda: page.evaluate("document.querySelector('video').videoWidth"))
    page.evaluate("window.track = document.querySelector('video').srcObject.getTracks()[0]")
    if leave == "Escape":
        page.keyboard.press("Escape")
    else:
        page.get_by_role("button", name="Cancel").click()
    wait_until(lambda: page.evaluate("window.track.readyState") == "ended")
    expect(page.locator(".card")).to_have_count(0)


def test_a_camera_that_cannot_be_had_is_said(open_page):
    page = open_page()
    page.evaluate(
        """() => {
            const error = new DOMException("Permission denied", "NotAllowedError");
            navigator.mediaDevices.getUserMedia = () => Promise.reject(error);
        }"""
    )
    page.get_by_role("button", name="Take a photo").click()
    expect(page.locator("#problem")).to_contain_text("cannot be used: Permission denied.")


def test_a_phone_has_its_own_camera_app(open_page, photo):
    page = open_page(**PHONE)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Take a photo").tap()
    assert chooser.value.element.get_attribute("capture") == "environment"
    chooser.value.set_files(photo)
    expect_espresso(page)


def test_without_javascript_the_form_does_for_several_photos(open_page, three):
    page = open_page(java_script_enabled=False)
    page.get_by_label("Choose photos").set_input_files(three)
    page.get_by_role("button", name="What is it?").click()
    expect(page.locator(".predictions li")).to_have_count(15)
    expect_espresso(page, card=1)
    assert page.locator(".card .file").all_text_contents() == [photo.name for photo in three]


# Who uses it


def test_a_newcomer_with_a_phone_names_three_photos_and_sees_why(open_page, three):
    page = open_page(**PHONE)
    with page.expect_file_chooser() as chooser:
        page.get_by_text("Choose photos").tap()
    assert chooser.value.is_multiple()
    chooser.value.set_files(three)
    expect(page.locator(".predictions li")).to_have_count(15)
    page.locator(".card").nth(1).get_by_role("button", name="espresso").tap()
    expect(page.locator(".card").nth(1).locator("canvas")).to_be_visible()
    for summary in page.locator("summary").all():
        summary.tap()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_newcomer_with_a_keyboard_only_names_three_photos_and_sees_why(open_page, three):
    page = open_page()
    choosers = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    page.keyboard.press("Tab")
    # The question's round trip also lets the browser hear that we wait for a chooser.
    assert page.evaluate("document.activeElement.name") == "file"
    page.keyboard.press("Enter")
    wait_until(lambda: page.evaluate("true") and choosers)
    choosers[0].set_files(three)
    expect(page.locator(".predictions li")).to_have_count(15)
    for wanted in ("Take a photo", "Tiger cat"):
        page.keyboard.press("Tab")
        assert wanted.lower() in page.evaluate("document.activeElement.textContent").lower()
    page.keyboard.press("Enter")
    expect(page.locator("canvas").first).to_be_visible()
    for _ in range(5):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".details").first).to_have_attribute("open", "")


# Behind a token


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
        choose(page, photo)
        if not javascript:
            page.get_by_role("button", name="What is it?").click()
        expect_espresso(page)
        if javascript:
            page.locator("summary").click()
            expect(page.locator(".curl code")).to_contain_text('"Authorization: Bearer $TOKEN"')
            expect(page.locator(".python code")).to_contain_text('os.environ["TOKEN"]')
