import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms
from skimage import data as skimage_data

import profiles
from pictures import COLOURS, difference, encode, ramp
from predictor.images import profile
from predictor.images.decoding import decode
from predictor.images.heatmap import shrink
from predictor.images.preprocessing import Preprocessing
from predictor.images.profile import to_srgb
from profiles import cmyk_profile, converted, grey_profile

LIMIT = 50_000_000
PREPROCESS = Preprocessing((224, 224), 255, Image.Resampling.BILINEAR, (0, 0, 0), (1, 1, 1))
PHOTO = Image.fromarray(skimage_data.chelsea()).resize((300, 200))
RED = Image.new("RGB", (16, 16), COLOURS["red"])


@pytest.fixture(autouse=True)
def _no_transforms(monkeypatch):
    monkeypatch.setattr(profile, "_transforms", type(profile._transforms)())


def seen(data: bytes) -> Image.Image:
    return to_srgb(decode(data, LIMIT))


def middle(data: bytes):
    image = seen(data)
    return image.getpixel((image.width // 2, image.height // 2))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
def test_red_and_green_exchanged_by_a_profile_are_seen_right(format):
    red, green, blue = middle(encode(RED, format, icc_profile=profiles.SWAPPED))
    assert (red < 20, green > 235, blue < 20) == (True, True, True)


@pytest.mark.parametrize("name", ["ADOBE", "PROPHOTO", "WIDE", "DISPLAY_P3"])
def test_photo_in_a_wide_colour_space_looks_like_the_srgb_original(name):
    wide = getattr(profiles, name)
    data = encode(converted(PHOTO, wide), icc_profile=wide)
    assert difference(seen(data), PHOTO) < 1.5
    assert difference(decode(data, LIMIT), PHOTO) > 2  # if the profile were ignored


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_an_srgb_profile_changes_no_pixel(mode):
    image = PHOTO.quantize() if mode == "P" else PHOTO.convert(mode)
    plain = PREPROCESS(decode(encode(image), LIMIT))
    for srgb in (profiles.rgb_profile(profiles.SRGB), _little_cms_srgb()):
        assert np.array_equal(PREPROCESS(decode(encode(image, icc_profile=srgb), LIMIT)), plain)


def _little_cms_srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_an_image_without_a_profile_is_never_converted(monkeypatch):
    monkeypatch.setattr(profile, "_transform", None)
    for mode in ("RGB", "RGBA", "L", "P", "CMYK"):
        image = PHOTO.quantize() if mode == "P" else PHOTO.convert(mode)
        assert seen(encode(image, "TIFF")).mode == "RGB"


def test_grey_with_a_profile_is_converted():
    grey = Image.new("L", (8, 8), 64)
    for mode in ("L", "LA"):
        data = encode(grey.convert(mode), icc_profile=grey_profile(1.0))
        assert middle(data) == pytest.approx((137,) * 3, abs=1)  # a quarter of white's light
    wide = Image.fromarray(np.full((8, 8), 64 * 257, "<u2"))
    assert middle(encode(wide, icc_profile=grey_profile(1.0))) == pytest.approx((137,) * 3, abs=1)


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_is_converted_by_its_profile(format):
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert difference(seen(encode(cyan, format)), Image.new("RGB", (16, 16), "cyan")) < 3
    for inks, colour in {"CMYK": "cyan", "MCYK": "magenta"}.items():
        data = encode(cyan, format, icc_profile=cmyk_profile(inks))
        assert difference(seen(data), Image.new("RGB", (16, 16), colour)) < 3


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_a_cmyk_photo_with_a_profile_is_not_negative(format):
    data = encode(PHOTO.convert("CMYK"), format, icc_profile=cmyk_profile())
    assert difference(seen(data), PHOTO) < 6


def test_a_profile_of_another_colour_space_is_ignored():
    cmyk = RED.convert("CMYK")
    for image, other in (
        (RED, cmyk_profile("MCYK")),
        (RED, grey_profile(1.0)),
        (cmyk, profiles.SWAPPED),
        (cmyk, grey_profile(1.0)),
    ):
        assert seen(encode(image, "TIFF", icc_profile=other)).getpixel((4, 4)) == (255, 0, 0)


def test_a_lab_image_with_a_profile_keeps_its_colours():
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.applyTransform(ramp(), ImageCms.buildTransform(srgb, lab, "RGB", "LAB"))
    for embedded in (profiles.SWAPPED, ImageCms.ImageCmsProfile(lab).tobytes()):
        assert difference(seen(encode(image, "TIFF", icc_profile=embedded)), ramp()) < 3


def with_tags(*names: bytes) -> bytes:
    content = b"XYZ " + bytes(16)
    return profiles.profile(b"RGB ", dict.fromkeys(names, content))


SWAPPED = profiles.SWAPPED
UNUSABLE = {
    "zeros": bytes(3000),
    "its beginning": SWAPPED[:500],
    "text": b"not a profile" * 30,
    "one byte": b"x",
    "no tags": with_tags(),
    "a link of two devices": SWAPPED[:12] + b"link" + SWAPPED[16:],
    "named colours": SWAPPED[:12] + b"nmcl" + SWAPPED[16:],
    "7 colours": SWAPPED[:16] + b"7CLR" + SWAPPED[20:],
    "a pipeline of stages": SWAPPED.replace(b"curv", b"mpet", 1),
    "many tags": with_tags(*(b"%04d" % number for number in range(101))),
    "10 MB": SWAPPED + bytes(10_000_000),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_profile_is_ignored(name):
    data = encode(RED, "TIFF", icc_profile=UNUSABLE[name])
    assert seen(data).getpixel((4, 4)) == (255, 0, 0)


def test_a_cmyk_image_with_a_broken_profile_is_converted_without():
    broken = cmyk_profile()[:300] + bytes(3000)
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert seen(encode(cyan, "TIFF", icc_profile=broken)).getpixel((4, 4)) == (0, 255, 255)


def test_a_hostile_profile_does_not_reach_little_cms(monkeypatch):
    printed = cmyk_profile().replace(b"mft1", b"mpet")
    monkeypatch.setattr("PIL.ImageCms.buildTransform", None)
    for name in ("a pipeline of stages", "many tags", "10 MB", "named colours"):
        assert seen(encode(RED, "TIFF", icc_profile=UNUSABLE[name])).mode == "RGB"
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    # For black point compensation, Little CMS also reads how ink is printed.
    for direction in (b"A2B0", b"B2D0"):
        data = encode(cyan, "TIFF", icc_profile=printed.replace(b"A2B0", direction))
        assert seen(data).getpixel((4, 4)) == (0, 255, 255)


def test_transparent_parts_stay_white_with_a_profile():
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    image.paste((255, 0, 0, 255), (4, 0, 8, 8))
    shown = seen(encode(image, icc_profile=SWAPPED))
    assert [shown.getpixel((x, 4)) for x in (1, 6)] == [(255, 255, 255), (0, 255, 0)]


def test_a_turned_photo_keeps_its_profile():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", (16, 8), (255, 0, 0))
    shown = seen(encode(image, exif=exif, icc_profile=SWAPPED))
    assert (shown.size, shown.getpixel((4, 8))) == ((8, 16), (0, 255, 0))


def test_the_pixels_for_the_model_and_the_explained_photo_are_converted():
    image = decode(encode(RED, icc_profile=SWAPPED), LIMIT)
    assert PREPROCESS(image)[100, 100].tolist() == [0, 255, 0]
    assert shrink(image).getpixel((4, 4)) == (0, 255, 0)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (300, 200), (60, 40), (2000, 1500)])
@pytest.mark.parametrize("filter", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_a_small_image_is_converted_exactly_and_a_large_one_nearly(size, filter):
    preprocess = Preprocessing((224, 224), 255, filter, (0, 0, 0), (1, 1, 1))
    image = PHOTO.resize(size)
    image.info["icc_profile"] = profiles.PROPHOTO
    exact, pixels = preprocess(to_srgb(image)), preprocess(image)
    if size[0] <= 500:
        assert np.array_equal(pixels, exact)
    assert np.abs(pixels.astype(int) - exact).mean() < 1


def test_a_transform_is_built_once_and_few_are_kept(monkeypatch):
    built, build = [], profile._build
    monkeypatch.setattr(profile, "_build", lambda data: built.append(data) or build(data))
    for _ in range(3):
        seen(encode(RED, icc_profile=SWAPPED))
    assert len(built) == 1
    for gamma in np.linspace(1, 3, 2 * profile.MAX_TRANSFORMS):
        seen(encode(RED, icc_profile=profiles.rgb_profile(profiles.P3, gamma=float(gamma))))
    assert len(profile._transforms) == profile.MAX_TRANSFORMS


def test_threads_share_a_transform_without_mixing_their_pixels():
    colours = [(9 * n, 255 - 9 * n, n) for n in range(16)]
    images = [Image.new("RGB", (300, 300), colour) for colour in colours]
    for image in images:
        image.info["icc_profile"] = profiles.PROPHOTO
    alone = [to_srgb(image).getcolors() for image in images]
    together = threading.Barrier(len(images))

    def convert(image):
        together.wait()
        return [to_srgb(image).getcolors() for _ in range(20)]

    with ThreadPoolExecutor(len(images)) as pool:
        results = list(pool.map(convert, images))
    assert results == [[colour] * 20 for colour in alone]


def test_display_p3_named_by_the_primaries_of_an_avif_is_converted():
    data = bytearray(encode(Image.new("RGB", (64, 64), (200, 60, 40)), "AVIF", quality=100))
    at = data.index(b"colrnclx") + 8
    expected = to_srgb(with_profile((200, 60, 40), profiles.DISPLAY_P3))
    struct.pack_into(">H", data, at, 12)
    assert middle(bytes(data)) == pytest.approx(expected.getpixel((0, 0)), abs=4)
    struct.pack_into(">H", data, at, 1)
    assert middle(bytes(data)) == pytest.approx((200, 60, 40), abs=4)


def with_profile(colour, embedded) -> Image.Image:
    image = Image.new("RGB", (1, 1), colour)
    image.info["icc_profile"] = embedded
    return image


def test_the_primaries_are_those_of_the_standards():
    for code, primaries in {12: profiles.P3, 9: profiles.BT_2020}.items():
        expected = profiles.colorants(primaries, profiles.D65)
        assert np.abs(np.array(profile.PRIMARIES[code]) - expected).max() < 0.0006


@pytest.mark.parametrize("size", [(16, 16), (900, 700)])  # converted before and after resizing
@pytest.mark.parametrize(
    ("channels", "green"), [("BGR", (0, 255, 0)), ("L", (150,)), ("RGBA", (0, 255, 0, 128))]
)
def test_colours_are_converted_for_other_channels(channels, green, size):
    image = RED.resize(size)
    if channels == "RGBA":
        image.putalpha(128)
    count = len(green)
    preprocess = Preprocessing(
        (8, 8), "squash", Image.Resampling.BILINEAR, (0,) * count, (1,) * count, channels
    )
    data = encode(image, icc_profile=profiles.SWAPPED)
    pixels = preprocess(decode(data, LIMIT, alpha=channels == "RGBA"))
    assert np.abs(pixels[4, 4].astype(int) - green).max() < 25


def test_grey_of_a_photo_with_an_srgb_profile_is_made_before_resizing():
    preprocess = Preprocessing((30, 30), "squash", Image.Resampling.BILINEAR, (0,), (1,), "L")
    data = encode(PHOTO, icc_profile=_little_cms_srgb())
    expected = PHOTO.convert("L").resize((30, 30), Image.Resampling.BILINEAR)
    assert np.array_equal(preprocess(decode(data, LIMIT))[..., 0], np.asarray(expected))
