"""Failures between the page and the server, and the messages about them."""

import requests
from playwright.sync_api import expect

from chromium import choose, expect_classes, expect_espresso, needs_chromium
from program_files import SETTINGS, Small, save_script, traced
from running_server import Server
from waiting import wait_until

pytestmark = needs_chromium


def test_a_file_that_is_not_an_image_is_an_error(open_page, photo, folder):
    (folder / "notes.txt").write_text("not a photo")
    page = open_page()
    choose(page, folder / "notes.txt")
    expect(page.locator(".card .error")).to_contain_text("not an image")
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    choose(page, photo)
    expect_espresso(page)


def test_a_bad_file_does_not_affect_other_photos(open_page, photo, folder):
    (folder / "notes.txt").write_text("not a photo")
    page = open_page()
    choose(page, photo, folder / "notes.txt", photo)
    expect(page.locator(".card .error:visible")).to_have_count(1)
    expect_espresso(page, card=0)
    expect_espresso(page, card=2)


def test_a_request_can_be_repeated_after_a_network_failure(open_page, photo):
    page = open_page()
    page.context.set_offline(True)
    choose(page, photo)
    expect(page.locator(".card .error")).to_contain_text("cannot be reached")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect_espresso(page)
    expect(page.locator(".card .error")).to_be_hidden()


def test_a_deleted_file_is_not_reported_as_a_network_failure(open_page, photo, folder):
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


def test_the_focus_moves_to_what_replaces_a_button(open_page, photo):
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


def test_the_focus_moves_to_the_error_if_no_button_is_left(open_page, photo):
    page = open_page()
    held = []
    page.route("**/predict*", lambda route: held.append(route))
    choose(page, photo)
    page.get_by_role("button", name="Cancel").focus()
    wait_until(lambda: page.evaluate("true") and held)
    held[0].fulfill(status=422, body='{"detail": "It is damaged."}')
    expect(page.locator(".card .error")).to_have_text("It is damaged.")
    assert page.evaluate("document.activeElement.textContent") == "It is damaged."


def test_photos_chosen_while_the_model_loads_are_classified(browser, photo, tmp_path):
    """Also if the model has fewer classes than the page first asked for."""
    (tmp_path / "labels.txt").write_text("one\ntwo\nthree\n")
    labels = tmp_path / "labels.txt"
    server = Server(model="resnet18", weights="random", labels=labels)
    try:
        page = browser.new_page()
        page.goto(server.url)
        expect(page.locator("#loading")).to_be_visible()
        choose(page, photo)
        expect_classes(page, 3, timeout=60_000)
        expect(page.locator("#loading")).to_be_hidden()
        expect(page.locator("#model .notice")).to_be_visible()
    finally:
        server.close()


def test_a_model_that_cannot_be_explained_offers_no_heat_maps(browser, photo, tmp_path):
    """Also if the page was opened before the server knew which model it is."""
    server = Server(model=save_script(tmp_path / "net.pt", traced(Small().eval())), **SETTINGS)
    try:
        page = browser.new_page()
        page.goto(server.url)
        expect(page.locator("#loading")).to_be_visible()
        for _ in ("while loading", "loaded"):
            choose(page, photo)
            expect_classes(page, 5, timeout=60_000)
            expect(page.locator("#loading")).to_be_hidden()
            expect(page.locator(".tip")).to_be_hidden()
            expect(page.locator(".predictions button")).to_have_count(0)
            page.reload()
        assert requests.post(f"{server.url}/explain", photo.read_bytes()).status_code == 501
    finally:
        server.close()


def test_a_server_that_ends_while_loading_is_reported(browser, photo, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"not weights")
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


def test_an_open_page_shows_the_model_once_it_is_loaded(browser, photo):
    server = Server(model="efficientnet_lite0")
    try:
        page = browser.new_page()
        page.goto(server.url)
        expect(page.locator("#loading")).to_be_visible()
        with page.expect_file_chooser() as chooser:
            page.get_by_text("Choose photos").click()
        expect(page.get_by_text("The model is efficientnet_lite0")).to_be_visible(timeout=60_000)
        chooser.value.set_files(photo)  # in a dialog opened while the model was loading
        expect_classes(page, 5, timeout=60_000)
        expect_espresso(page)
    finally:
        server.close()


def test_a_503_is_retried_after_its_retry_after(open_page, photo):
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


def test_a_proxys_error_page_is_not_shown(open_page, photo):
    page = open_page()
    page.route("**/predict*", lambda route: route.fulfill(status=502, body="<h1>nginx</h1>"))
    choose(page, photo)
    expect(page.locator(".card .error")).to_have_text("The server answered 502.")


def test_progress_is_shown_and_uploads_can_be_cancelled(open_page, photo):
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
