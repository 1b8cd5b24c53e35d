"""The copies that the browser makes of photos that the server does not accept."""

import json

import pytest
from PIL import Image
from playwright.sync_api import expect
from skimage import data

from chromium import MAX_BYTES, MAX_PIXELS, choose, copy_sent, expect_classes, needs_chromium
from pictures import encode
from waiting import wait_until

pytestmark = needs_chromium


@pytest.mark.parametrize("limit", ["bytes", "pixels"])
def test_a_photo_over_a_limit_is_sent_as_a_smaller_copy(open_page, folder, limit):
    large = Image.fromarray(data.coffee()).resize((2400, 1600))
    path = folder / f"large-{limit}.jpg"
    large.save(path, quality=99 if limit == "bytes" else 50, progressive=limit == "pixels")
    assert (path.stat().st_size > MAX_BYTES) == (limit == "bytes")
    assert large.width * large.height > MAX_PIXELS
    page = open_page()
    choose(page, path)
    expect_espresso(page)
    expect(page.locator(".note")).to_contain_text("your browser sent a smaller copy")
    assert copy_sent(page).size == (1500, 1000)


def test_transparent_pixels_are_white_in_the_smaller_copy(open_page, folder):
    noise = Image.effect_noise((1200, 1100), 90).convert("RGBA")
    noise.putalpha(0)
    (folder / "clear.png").write_bytes(encode(noise))
    assert (folder / "clear.png").stat().st_size > MAX_BYTES
    page = open_page()
    choose(page, folder / "clear.png")
    expect_classes(page, 5)
    assert copy_sent(page).getextrema() == ((255, 255),) * 3


SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="600" height="400">
<circle cx="300" cy="200" r="150" fill="red"/></svg>"""


@pytest.mark.parametrize("kind", ["ico", "svg"])
def test_a_format_that_only_the_browser_reads_is_sent_as_a_copy(open_page, folder, kind):
    path = folder / f"picture.{kind}"
    if kind == "svg":
        path.write_text(SVG)
    else:
        Image.fromarray(data.coffee()).save(path, sizes=[(256, 256)])
    page = open_page()
    choose(page, path)
    expect_classes(page, 5)
    expect(page.locator(".note")).to_contain_text("so your browser sent a JPEG copy")
    expect(page.locator(".card .error")).to_be_hidden()
    copy = copy_sent(page)
    assert copy.format == "JPEG"
    assert copy.size == {"svg": (600, 400), "ico": (256, 171)}[kind]


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
REFUSAL = json.dumps({"detail": "The file is HEIC. Save it as JPEG."})


@pytest.mark.parametrize("can", [True, False])
def test_heic_is_converted_where_the_browser_can(open_page, folder, photo, can):
    (folder / "phone.heic").write_bytes(HEIC)
    page = open_page()
    sent = []

    def refuse_once(route):
        sent.append(route)
        if len(sent) > 1:
            return route.continue_()
        return route.fulfill(status=415, body=REFUSAL)

    page.route("**/predict*", refuse_once)
    if can:  # Safari
        page.evaluate(
            """(bytes) => {
                const {createImageBitmap: read} = window;
                window.createImageBitmap = () => read(new Blob([new Uint8Array(bytes)]));
            }""",
            list(photo.read_bytes()),
        )
    choose(page, folder / "phone.heic")
    if can:
        expect_espresso(page)
        assert copy_sent(page).size == (600, 400)
    else:
        expect(page.locator(".card .error")).to_have_text("The file is HEIC. Save it as JPEG.")
        expect(page.get_by_role("button", name="Try again")).to_be_hidden()


def expect_espresso(page):
    expect(page.locator(".predictions li").first).to_contain_text("espresso")


def test_cancelling_while_a_copy_is_made_sends_nothing(open_page, folder):
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


def test_a_large_file_that_cannot_be_made_smaller_is_an_error(open_page, folder):
    (folder / "large.tif").write_bytes(bytes(MAX_BYTES + 1))
    page = open_page()
    choose(page, folder / "large.tif")
    expect(page.locator(".card .error")).to_have_text(
        "This file has 1.0 MB; the server accepts at most 1.0 MB."
        " This browser cannot make it smaller."
    )
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
