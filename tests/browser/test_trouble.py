"""What goes wrong between the page and the server, said in words."""

import pytest
from PIL import Image
from playwright.sync_api import expect
from skimage import data

from chromium import MAX_BYTES, MAX_PIXELS, choose, copy_sent, expect_espresso, needs_chromium
from pictures import encode
from running_server import Server
from waiting import wait_until

pytestmark = needs_chromium


def test_what_is_no_photo_is_said_and_the_next_one_is_named(open_page, photo, folder):
    (folder / "notes.txt").write_text("no photo")
    page = open_page()
    choose(page, folder / "notes.txt")
    expect(page.locator(".card .error")).to_contain_text("not an image")
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    choose(page, photo)
    expect_espresso(page)


def test_one_of_many_that_is_no_photo_spoils_no_other(open_page, photo, folder):
    (folder / "notes.txt").write_text("no photo")
    page = open_page()
    choose(page, photo, folder / "notes.txt", photo)
    expect(page.locator(".card .error:visible")).to_have_count(1)
    expect_espresso(page, card=0)
    expect_espresso(page, card=2)


@pytest.mark.parametrize("limit", ["bytes", "pixels"])
def test_a_photo_too_large_is_sent_smaller_and_that_is_said(open_page, folder, limit):
    large = Image.fromarray(data.coffee()).resize((2400, 1600))
    path = folder / f"large-{limit}.jpg"
    large.save(path, quality=99 if limit == "bytes" else 50)
    assert (path.stat().st_size > MAX_BYTES) == (limit == "bytes")
    assert large.width * large.height > MAX_PIXELS
    page = open_page()
    choose(page, path)
    expect(page.locator(".predictions li").first).to_contain_text("espresso")
    expect(page.locator(".note")).to_contain_text("your browser sent a smaller copy")
    assert copy_sent(page).size == (1500, 1000)


def test_what_is_transparent_is_white_in_the_smaller_copy_too(open_page, folder):
    noise = Image.effect_noise((1200, 1100), 90).convert("RGBA")
    noise.putalpha(0)
    (folder / "clear.png").write_bytes(encode(noise))
    assert (folder / "clear.png").stat().st_size > MAX_BYTES
    page = open_page()
    choose(page, folder / "clear.png")
    expect(page.locator(".predictions li")).to_have_count(5)
    assert copy_sent(page).getextrema() == ((255, 255),) * 3


def test_what_is_cancelled_while_it_is_made_smaller_is_not_said_to_be_sent(open_page, folder):
    (folder / "noise.png").write_bytes(encode(Image.effect_noise((1200, 1100), 90)))
    page = open_page()
    page.evaluate(
        """() => {
            const {createImageBitmap: read} = window, canvas = HTMLCanvasElement.prototype;
            window.createImageBitmap = async (file) => {
                await new Promise((resolve) => (window.goOn = resolve));
                return read(file);
            };
            const encode = canvas.toBlob;
            canvas.toBlob = function (done, ...options) {
                const finish = (blob) => (done(blob), setTimeout(() => (window.finished = true)));
                encode.call(this, finish, ...options);
            };
        }"""
    )
    choose(page, folder / "noise.png")
    expect(page.locator(".doing")).to_have_text("Making it smaller")
    wait_until(lambda: page.evaluate("'goOn' in window"))
    page.get_by_role("button", name="Cancel").click()
    page.evaluate("window.goOn()")
    wait_until(lambda: page.evaluate("window.finished"))
    expect(page.locator(".note")).to_be_hidden()
    expect(page.locator(".card .error")).to_have_text("Cancelled.")


def test_what_is_too_large_and_cannot_be_made_smaller_is_said(open_page, folder):
    (folder / "large.tif").write_bytes(bytes(MAX_BYTES + 1))
    page = open_page()
    choose(page, folder / "large.tif")
    expect(page.locator(".card .error")).to_have_text(
        "This file has 1.0 MB; the server accepts 1.0 MB."
    )
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()


def test_a_server_that_is_gone_is_said_and_can_be_asked_again(open_page, photo):
    page = open_page()
    page.context.set_offline(True)
    choose(page, photo)
    expect(page.locator(".card .error")).to_contain_text("cannot be reached")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect_espresso(page)
    expect(page.locator(".card .error")).to_be_hidden()


def test_a_file_that_has_gone_is_no_fault_of_the_servers(open_page, photo, folder):
    gone = folder / "gone.png"
    gone.write_bytes(photo.read_bytes())
    page = open_page()
    page.context.set_offline(True)
    choose(page, gone)
    expect(page.locator(".card .error")).to_contain_text("cannot be reached")
    gone.unlink()
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".card .error")).to_contain_text("cannot be read")


def test_the_focus_goes_to_what_takes_the_buttons_place(open_page, photo):
    page = open_page()
    page.route("**/predict*", lambda route: None)
    choose(page, photo)
    focused = "document.activeElement.textContent.trim()"
    page.get_by_role("button", name="Cancel").press("Enter")
    assert page.evaluate(focused) == "Try again"
    page.keyboard.press("Enter")
    assert page.evaluate(focused) == "Cancel"
    page.keyboard.press("Enter")
    page.unroute("**/predict*")
    page.keyboard.press("Enter")
    expect_espresso(page)
    assert "espresso" in page.evaluate(focused)


def test_where_nothing_is_left_to_press_the_focus_goes_to_the_reason(open_page, photo):
    page = open_page()
    held = []
    page.route("**/predict*", lambda route: held.append(route))
    choose(page, photo)
    page.get_by_role("button", name="Cancel").focus()
    wait_until(lambda: page.evaluate("true") and held)
    held[0].fulfill(status=422, body='{"detail": "It is damaged."}')
    expect(page.locator(".card .error")).to_have_text("It is damaged.")
    assert page.evaluate("document.activeElement.textContent") == "It is damaged."


def test_photos_that_come_while_the_model_loads_are_answered_when_it_has(browser, photo, tmp_path):
    """By a model of which the page did not know yet how many classes it has."""
    (tmp_path / "labels.txt").write_text("one\ntwo\nthree\n")
    labels = tmp_path / "labels.txt"
    server = Server(model="resnet18", weights="random", labels=labels)
    try:
        page = browser.new_page()
        page.goto(server.url)
        expect(page.locator("#loading")).to_be_visible()
        choose(page, photo)
        expect(page.locator(".predictions li")).to_have_count(3, timeout=60_000)
        expect(page.locator("#loading")).to_be_hidden()
        expect(page.get_by_text("every answer is meaningless")).to_be_visible()
    finally:
        server.close()


def test_a_server_that_ends_while_it_loads_is_said_to_be_gone(browser, photo, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    server = Server(model="resnet18", weights=tmp_path / "weights.pth")
    try:
        page = browser.new_page()
        page.goto(server.url)
        choose(page, photo)
        expect(page.locator("#loading")).to_have_text(
            "The server cannot be reached.", timeout=60_000
        )
        expect(page.locator(".doing")).to_have_text("Waiting for its turn")
    finally:
        server.close()


def test_a_page_that_is_open_while_the_model_loads_names_it_when_it_has(browser, photo):
    server = Server(model="efficientnet_lite0")
    try:
        page = browser.new_page()
        page.goto(server.url)
        expect(page.locator("#loading")).to_be_visible()
        with page.expect_file_chooser() as chooser:
            page.get_by_text("Choose photos").click()
        expect(page.get_by_text("Answered by efficientnet_lite0")).to_be_visible(timeout=60_000)
        chooser.value.set_files(photo)  # by somebody who took his time
        expect_espresso(page)
    finally:
        server.close()


def test_a_server_that_is_busy_is_asked_again_when_it_says(open_page, photo):
    page = open_page()
    answers = []

    def be_busy_once(route):
        answers.append(route)
        if len(answers) > 1:
            return route.continue_()
        return route.fulfill(status=503, headers={"Retry-After": "1"}, body="{}")

    page.route("**/predict*", be_busy_once)
    choose(page, photo)
    expect(page.locator(".doing")).to_contain_text("busy; trying again in 1 s")
    expect_espresso(page)


def test_a_page_of_a_proxy_is_not_shown_as_the_reason(open_page, photo):
    page = open_page()
    page.route("**/predict*", lambda route: route.fulfill(status=502, body="<h1>nginx</h1>"))
    choose(page, photo)
    expect(page.locator(".card .error")).to_have_text("The server answered 502.")


def test_on_a_slow_network_one_sees_it_go_and_can_stop_it(open_page, photo):
    page = open_page()
    network = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 100_000}
    network.send("Network.enable")
    network.send("Network.emulateNetworkConditions", slow)
    choose(page, photo, photo, photo)
    wait_until(lambda: 0 < page.evaluate("document.querySelector('progress').value") < 1)
    expect(page.locator(".doing").first).to_have_text("Sending")
    expect(page.locator(".doing").last).to_have_text("Waiting for its turn")
    for button in page.get_by_role("button", name="Cancel").all()[::-1]:
        button.click()
    for card in page.locator(".card").all():
        expect(card.locator(".error")).to_have_text("Cancelled.")
    network.send("Network.emulateNetworkConditions", slow | {"uploadThroughput": -1})
    page.get_by_role("button", name="Try again").first.click()
    expect_espresso(page)
    assert page.locator(".predictions li").count() == 5
