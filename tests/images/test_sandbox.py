"""AVIF, HEIC, TIFF and large lossless WebP are decoded in limited processes of their own."""

import contextlib
import errno
import socket

import pytest
from PIL import Image
from skimage import data as skimage_data

import hostile
import profiles
from heic import heic
from pictures import encode
from predictor.errors import Overloaded, RequestError, UnsupportedImage
from predictor.images import heif, sandbox, tiff, webp
from predictor.images.decoding import decode, decode_here
from predictor.images.sandbox import thread_seconds

LIMIT = 50_000_000
PHOTO = Image.fromarray(skimage_data.chelsea())
GOOD = encode(Image.new("RGB", (8, 8), "red"), "TIFF")


def turned(image):
    exif = Image.Exif()
    exif[0x0112] = 6
    return {"image": image, "exif": exif}


HONEST = {
    "tiff": lambda: encode(PHOTO, "TIFF"),
    "tiff of 16 bits": lambda: encode(Image.new("I;16", (40, 30), 40_000), "TIFF"),
    "turned tiff": lambda: encode(format="TIFF", compression="tiff_lzw", **turned(PHOTO)),
    "cmyk tiff with a profile": lambda: encode(
        PHOTO.convert("CMYK"), "TIFF", icc_profile=profiles.cmyk_profile()
    ),
    "avif": lambda: encode(PHOTO, "AVIF", speed=10),
    "turned avif": lambda: encode(format="AVIF", speed=10, **turned(PHOTO)),
    "transparent avif": lambda: encode(PHOTO.convert("RGBA").rotate(9), "AVIF", speed=10),
    "avif with a profile": lambda: encode(PHOTO, "AVIF", speed=10, icc_profile=profiles.DISPLAY_P3),
    "heic": lambda: heic(PHOTO),
    "heic of 10 bits with a profile": lambda: heic(PHOTO, 10, color_primaries=12),
    "lossless webp": lambda: encode(PHOTO, "WEBP", lossless=True, method=0),
}


def large(format, **options):
    return encode(PHOTO.resize((4000, 3000), Image.Resampling.NEAREST), format, **options)


LARGE = {
    "tiff": lambda: large("TIFF", compression="tiff_lzw"),
    "avif": lambda: large("AVIF", speed=10),
    "heic": lambda: heic(PHOTO.resize((4000, 3000), Image.Resampling.NEAREST)),
}


def assert_same_pixels(data):
    for alpha in (False, True):
        apart = decode(data, LIMIT, alpha=alpha)
        here = decode_here(data, LIMIT, None, lambda _: None, alpha)
        assert (apart.mode, apart.size, apart.info) == (here.mode, here.size, here.info)
        assert apart.tobytes() == here.tobytes()


@pytest.mark.parametrize("make", HONEST.values(), ids=HONEST)
def test_sandbox_returns_the_pixels_and_profile_of_the_decoder(make):
    assert_same_pixels(make())


@pytest.mark.slow
@pytest.mark.parametrize("make", LARGE.values(), ids=LARGE)
def test_sandbox_returns_the_pixels_of_12_megapixels(make):
    assert_same_pixels(make())


HOSTILE = {
    f"{kind} with {name}": make
    for kind in ("AVIF", "HEIC", "TIFF", "WEBP")
    for name, make in getattr(hostile, kind).items()
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_hostile_file_costs_at_most_its_seconds(make):
    data, began = make(), thread_seconds()
    with contextlib.suppress(RequestError):
        decode(data, LIMIT, most_s=0.3)
    assert thread_seconds() - began < 0.3 + 0.4  # to receive 40 megapixels takes 0.1 to 0.35
    assert decode(GOOD, LIMIT).size == (8, 8)


def test_without_free_file_descriptors_the_server_is_overloaded(monkeypatch):
    def refuse():
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socketpair", refuse)
    with pytest.raises(Overloaded):
        decode(GOOD, LIMIT)


NOISE = Image.effect_noise((300, 300), 90)


@pytest.mark.parametrize(
    ("options", "apart"),
    [
        ({}, False),
        ({"lossless": True, "method": 0}, True),
        ({"alpha": True}, True),
        ({"lossless": True, "method": 0, "save_all": True, "append_images": [NOISE]}, True),
        ({"save_all": True, "append_images": [NOISE]}, False),
    ],
    ids=["lossy", "lossless", "lossless alpha", "lossless frames", "lossy frames"],
)
def test_webp_of_many_lossless_bytes_is_decoded_apart(monkeypatch, options, apart):
    image, seen, options = NOISE.convert("RGB"), [], dict(options)
    if options.pop("alpha", False):
        image.putalpha(NOISE)
    data = encode(image, "WEBP", quality=90, **options)
    assert len(data) > 30_000
    monkeypatch.setattr(sandbox, "decode", lambda *_: seen.append(1))
    decode(data, LIMIT)
    assert seen == [1] * apart


@pytest.mark.parametrize(("width", "apart"), [(4100, True), (3900, False)])
@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"mode": "RGBA"}])
def test_large_webp_is_decoded_apart(monkeypatch, width, apart, options):
    """Lossy, lossless and extended files have the size at other places."""
    image = Image.new(options.get("mode", "RGB"), (width, 4000), "#10203040")
    data = encode(image, "WEBP", method=0, quality=0, lossless="lossless" in options)
    assert data[12:16] == {(): b"VP8 ", ("lossless",): b"VP8L", ("mode",): b"VP8X"}[tuple(options)]
    assert webp.is_slow(data) == apart


def test_lossless_webp_behind_an_empty_frame_is_decoded_apart(monkeypatch):
    data = hostile.webp_with_an_empty_frame_first()
    assert decode(data, LIMIT).size == (250, 250)
    monkeypatch.setattr(sandbox, "decode", lambda *_: "apart")
    assert decode(data, LIMIT) == "apart"


@pytest.mark.parametrize(("before", "apart"), [(10, False), (60, True)])
def test_webp_whose_frame_comes_late_is_decoded_apart(before, apart):
    """To look for it among thousands of chunks would take 4 ms before it is the image's turn."""
    image = encode(Image.new("RGBA", (64, 48), "#10203040"), "WEBP")  # has a header, VP8X
    data = image[:30] + b"abcd\0\0\0\0" * before + image[30:]
    data = data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:]
    assert webp.is_slow(data) == apart
    assert decode(data, LIMIT).size == (64, 48)


@pytest.mark.parametrize("begin", [b"MM+\0", b"II\0+", b"\0\0\0\x1cftypabcd\0\0\0\0avif"])
def test_file_that_no_format_takes_is_refused_before_any_check(monkeypatch, begin):
    monkeypatch.setattr(tiff, "check", None)
    monkeypatch.setattr(heif, "without_metadata", None)
    with pytest.raises(UnsupportedImage):
        decode(begin + bytes(400), LIMIT)


def test_small_lossless_webp_is_decoded_in_the_server(monkeypatch):
    monkeypatch.setattr(sandbox, "decode", None)
    assert decode(encode(PHOTO.resize((64, 48)), "WEBP", lossless=True), LIMIT)
