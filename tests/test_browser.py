"""The page in a real browser, against the real server."""

import io
import json
import re
import subprocess
import sys

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import expect
from skimage import data

from chromium import PHONE, choose, expect_espresso, launch, needs_chromium, opener
from pictures import encode
from server import Server
from waiting import wait_until

pytestmark = needs_chromium
MAX_BYTES, MAX_PIXELS = 1_000_000, 3_000_000


@pytest.fixture(scope="module")
def server():
    running = Server(
        model="efficientnet_lite0", max_upload_bytes=MAX_BYTES, max_pixels=MAX_PIXELS
    ).wait_until_ready()
    yield running
    running.close()


@pytest.fixture(scope="module")
def browser():
    yield from launch()


@pytest.fixture
def open_page(browser, server):
    yield from opener(browser, server)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("photos")


@pytest.fixture(scope="module")
def photo(folder):
    path = folder / "coffee.png"
    Image.fromarray(data.coffee()).save(path)
    return path


@pytest.fixture(scope="module")
def three(folder, photo):
    """The espresso in the middle."""
    for name in ("chelsea", "rocket"):
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")
    return folder / "chelsea.png", photo, folder / "rocket.png"


# Photos come in


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
    page.get_by_role("button", name="Take a photo").click()
    wait_until(lambda: page.evaluate("document.querySelector('video').videoWidth"))
    page.get_by_role("button", name="Take the photo").click()
    expect(page.locator(".predictions li")).to_have_count(5)
    assert re.fullmatch(r"camera-[\d-]+\.jpg", page.locator(".card .file").text_content())
    assert page.locator("img").evaluate("image => image.naturalWidth") > 0
    assert copy_sent(page).format == "JPEG"


def copy_sent(page):
    """The photo that was sent, where it is not the file on the disk."""
    page.locator("summary").click()
    with page.expect_download() as download:
        page.get_by_text("Save the photo").click()
    return Image.open(io.BytesIO(download.value.path().read_bytes()))


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
    choose(page, *three)
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


# Why it thinks so


def shown(page):
    """The heat map's place in the photo, in parts of it, and where it is brightest."""
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


def test_a_class_shows_where_it_is_and_another_shows_another_place(open_page, folder):
    """A cat above a cup of coffee."""
    both = Image.new("RGB", (600, 600))
    both.paste(Image.fromarray(data.chelsea()).resize((600, 300)), (0, 0))
    both.paste(Image.fromarray(data.coffee()).resize((600, 300)), (0, 300))
    both.save(folder / "both.png")
    page = open_page()
    choose(page, folder / "both.png")
    cat, espresso = (page.locator(".row", has_text=name) for name in ("Egyptian cat", "espresso"))
    cat.click()
    expect(page.locator("figcaption")).to_contain_text("speaks for Egyptian cat")
    assert shown(page)["brightest"] < 0.5
    espresso.click()
    expect(page.locator("figcaption")).to_contain_text("speaks for espresso")
    assert shown(page)["brightest"] > 0.5
    assert shown(page)["box"] == pytest.approx([6.25, 6.25, 87.5, 87.5])
    assert (cat.get_attribute("aria-pressed"), espresso.get_attribute("aria-pressed")) == (
        "false", "true"
    )  # fmt: skip
    espresso.click()
    expect(page.locator("canvas")).to_be_hidden()
    expect(espresso).to_have_attribute("aria-pressed", "false")


def test_a_reason_that_cannot_be_had_is_said(open_page, photo):
    page = open_page()
    choose(page, photo)
    problem = json.dumps({"detail": "It has no feature maps."})
    page.route("**/explain*", lambda route: route.fulfill(status=501, body=problem))
    row = page.locator(".row").first
    row.click()
    expect(page.locator("figcaption")).to_have_text("It has no feature maps.")
    expect(row).to_have_attribute("aria-pressed", "false")


def test_the_scripts_colours_are_the_pictures(open_page):
    from predictor.heatmap import COLOURS, OPACITY

    source = open_page("/static/heat.js").locator("pre").text_content()
    assert json.loads(re.search(r"COLOURS = (.+);", source)[1]) == [list(c) for c in COLOURS]
    assert float(re.search(r"OPACITY = (.+);", source)[1]) == OPACITY


# The details


@pytest.mark.parametrize("name", ["coffee.png", 'it\'s "50%" of a; cup, $HOME.png'])
def test_the_lines_to_copy_do_the_same_again(open_page, folder, photo, name):
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


def test_the_details_have_the_wordnet_ids_and_where_the_time_went(open_page, photo):
    page = open_page()
    choose(page, photo)
    page.locator("summary").click()
    first = page.locator(".classes tr").first.locator("td").all_text_contents()
    assert first[:3] == ["espresso", "n07920052", "967"]
    assert float(first[3]) == pytest.approx(0.951, abs=1e-3)
    text = page.locator(".time").text_content()
    (seconds, parts), steps = text.split(" s: "), r"(\w[\w ]*) (\d+) ms"
    split = {step: int(ms) for step, ms in re.findall(steps, parts)}
    assert list(split) == ["read", "decode", "queue", "inference", "way there and back"]
    assert split["inference"] > 0
    assert sum(split.values()) == pytest.approx(float(seconds) * 1000, abs=10)


# Trouble


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


def test_what_is_too_large_and_cannot_be_made_smaller_is_said(open_page, folder):
    (folder / "large.tif").write_bytes(bytes(MAX_BYTES + 1))
    page = open_page()
    choose(page, folder / "large.tif")
    expect(page.locator(".card .error")).to_have_text(
        "This file has 1.0 MB; the server accepts 1.0 MB."
    )


def test_a_server_that_is_gone_is_said_and_can_be_asked_again(open_page, photo):
    page = open_page()
    page.context.set_offline(True)
    choose(page, photo)
    expect(page.locator(".card .error")).to_contain_text("cannot be reached")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect_espresso(page)
    expect(page.locator(".card .error")).to_be_hidden()


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


# How it looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("window", [{}, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing_to_complain_of(open_page, three, folder, scheme, window):
    (folder / "notes.txt").write_text("no photo")
    page = open_page(color_scheme=scheme, reduced_motion="reduce", **window)
    choose(page, *three, folder / "notes.txt")
    expect(page.locator(".predictions li")).to_have_count(15)
    page.locator(".row").first.click()
    expect(page.locator("canvas").first).to_be_visible()
    page.locator("summary").first.click()
    report = Axe().run(page)
    assert report.response["violations"] == [], report.generate_report()


def test_dark_is_dark_and_light_is_light(open_page):
    def brightness(scheme):
        colour = open_page(color_scheme=scheme).evaluate(
            "getComputedStyle(document.body).backgroundColor"
        )
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    assert brightness("dark") < 120 < 600 < brightness("light")


def test_nothing_moves_for_whoever_wants_it_so(open_page, photo):
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
def test_it_fits_every_screen(open_page, three, width):
    page = open_page(viewport={"width": width, "height": 800})
    choose(page, *three)
    expect(page.locator(".predictions li")).to_have_count(15)
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_with_all_its_files_is_light(open_page, server):
    page = open_page("/healthz")
    sizes = {}
    page.on("response", lambda response: sizes.update({response.url: len(response.body())}))
    page.goto(server.url, wait_until="networkidle")
    assert len(sizes) >= 9
    assert sum(sizes.values()) < 60_000


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
