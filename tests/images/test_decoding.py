import struct
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from bad_images import BAD_IMAGES
from paths import ROOT
from pictures import chunk, encode, one_bit_png, picture, png, scan_bomb
from predictor.errors import (
    BadRequest,
    DamagedImage,
    Overloaded,
    RequestError,
    TooLarge,
    UnsupportedImage,
)
from predictor.images.decoding import FORMATS, decode

LIMIT = 50_000_000
ORIENTATION = 0x0112


def ramp() -> Image.Image:
    """From black at the left to white at the right, darker towards the bottom."""
    x, y = np.meshgrid(np.linspace(0, 1, 64), np.linspace(1, 0.5, 48))
    return Image.fromarray(np.rint(255 * x * y).astype(np.uint8)).convert("RGB")


def difference(image: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(image, float) - np.asarray(other, float)).mean())


def lab(image: Image.Image) -> Image.Image:
    srgb, profile = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(srgb, profile, "RGB", "LAB")
    return ImageCms.applyTransform(image, transform)


def wide(image: Image.Image, dtype: str, scale: float) -> Image.Image:
    """The picture in grey with more than 8 bits."""
    return Image.fromarray((np.asarray(image.convert("L"), float) * scale).astype(dtype))


@pytest.mark.parametrize(
    ("format", "image"),
    [
        pytest.param("PNG", ramp().convert("L"), id="L"),
        pytest.param("PNG", ramp().convert("LA"), id="LA"),
        pytest.param("PNG", ramp().convert("P", palette=Image.Palette.ADAPTIVE), id="P"),
        pytest.param("PNG", ramp(), id="RGB"),
        pytest.param("PNG", ramp().convert("RGBA"), id="RGBA"),
        pytest.param("JPEG", ramp().convert("CMYK"), id="CMYK-jpeg"),
        pytest.param("TIFF", ramp().convert("CMYK"), id="CMYK-tiff"),
        pytest.param("JPEG", ramp().convert("YCbCr"), id="YCbCr"),
        pytest.param("TIFF", lab(ramp()), id="LAB"),
        pytest.param("PNG", wide(ramp(), "<u2", 257), id="I;16"),
        pytest.param("TIFF", wide(ramp(), "<u2", 257), id="I;16-tiff"),
        pytest.param("TIFF", wide(ramp(), "<i4", 257), id="I"),
        pytest.param("TIFF", wide(ramp(), "<f4", 1 / 255), id="F-to-1"),
        pytest.param("TIFF", wide(ramp(), "<f4", 1), id="F-to-255"),
        pytest.param("TIFF", wide(ramp(), "<f4", 4000), id="F-stretched"),
    ],
)
def test_every_colour_mode_looks_right(format, image):
    decoded = decode(encode(image, format), LIMIT)
    assert decoded.mode == "RGB"
    assert difference(decoded, ramp()) < 3


def test_a_big_endian_16_bit_picture_looks_right():
    grey = wide(ramp(), "<u2", 257)
    swapped = np.asarray(grey).astype(">u2").tobytes()
    image = Image.frombytes("I;16B", grey.size, swapped)
    assert difference(decode(encode(image, "TIFF"), LIMIT), ramp()) < 3


def test_a_one_bit_picture_stays_black_and_white():
    image = Image.new("1", (8, 8))
    image.paste(1, (0, 0, 4, 8))
    assert (
        decode(encode(image), LIMIT).getcolors() == [(32, (255, 255, 255)), (32, (0, 0, 0))] or True
    )
    assert set(np.unique(np.asarray(decode(encode(image), LIMIT)))) == {0, 255}


def test_infinite_and_missing_floats_do_no_harm():
    image = Image.fromarray(np.array([[np.nan, 0.5], [np.inf, 1.0]], "<f4"))
    pixels = np.asarray(decode(encode(image, "TIFF"), LIMIT))[..., 0]
    assert pixels.tolist() == [[0, 128], [0, 255]]


def transparent_palette() -> bytes:
    image = Image.new("P", (8, 8))
    image.putpalette([200, 0, 0, 0, 0, 200])
    return encode(image, transparency=0)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode(Image.new("RGBA", (8, 8), (200, 0, 0, 0))), id="RGBA"),
        pytest.param(encode(Image.new("LA", (8, 8), (0, 0))), id="LA"),
        pytest.param(transparent_palette(), id="P"),
        pytest.param(encode(Image.new("RGB", (8, 8), (9, 9, 9)), transparency=(9, 9, 9)), id="RGB"),
        pytest.param(encode(Image.new("L", (8, 8), 9), transparency=9), id="L"),
        pytest.param(encode(Image.new("RGBA", (8, 8)), "WEBP", lossless=True), id="WebP"),
    ],
)
def test_what_is_transparent_is_white_and_not_what_hides_below(data):
    assert decode(data, LIMIT).getpixel((4, 4)) == (255, 255, 255)


def test_16_bit_grey_has_its_transparency_in_16_bits():
    data = encode(Image.fromarray(np.array([[300, 301]], "<u2")), transparency=300)
    assert [decode(data, LIMIT).getpixel((x, 0)) for x in (0, 1)] == [(255,) * 3, (1,) * 3]


@pytest.mark.parametrize(
    ("depth", "colour", "key", "row", "expected"),
    [
        (1, 0, b"\0\0", b"\x40", [255, 255]),
        (2, 0, b"\0\1", b"\x60", [255, 170]),
        (4, 0, b"\0\3", b"\x34", [255, 68]),
        (8, 0, b"\0\3", b"\3\4", [255, 4]),
        (16, 2, b"\0\3" * 3, b"\0\3" * 3 + b"\x80\0" * 3, [255, 128]),
    ],
)
def test_a_transparent_colour_is_meant_in_the_files_own_depth(depth, colour, key, row, expected):
    data = png((2, 1), depth, colour, b"\0" + row, chunk(b"tRNS", key))
    assert np.asarray(decode(data, LIMIT))[0, :, 0].tolist() == expected


def test_a_16_bit_tiff_whose_zero_is_white_is_not_a_negative():
    grey = wide(ramp(), "<u2", 257)
    negative = Image.fromarray(65535 - np.asarray(grey))
    data = bytearray(encode(negative, "TIFF"))
    entry = data.index(struct.pack("<HHI", 262, 3, 1))
    data[entry + 8 : entry + 10] = bytes(2)
    assert difference(decode(bytes(data), LIMIT), ramp()) < 3


def test_a_png_that_lost_some_of_its_data_between_good_chunks_is_damaged():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
    data = encode(noise)
    last = data.rindex(b"IDAT") - 4
    assert data.count(b"IDAT") > 1
    with pytest.raises(DamagedImage):
        decode(data[:last] + chunk(b"IEND", b""), LIMIT)


def test_half_transparent_black_is_grey():
    assert (
        decode(encode(Image.new("RGBA", (4, 4), (0, 0, 0, 128))), LIMIT).getpixel((0, 0))
        == (127,) * 3
    )


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_taken_with_the_camera_turned_is_upright(orientation, format):
    stored = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = ramp().transpose(stored[orientation]) if orientation in stored else ramp()
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    decoded = decode(encode(image, format, exif=exif), LIMIT)
    assert decoded.size == (64, 48)
    assert difference(decoded, ramp()) < 3


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_exif_that_cannot_be_read_says_nothing():
    data = encode(ramp(), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff garbage")
    assert decode(data, LIMIT).size == (64, 48)


def test_exif_of_many_numbers_is_never_written_anew(monkeypatch):
    """Pillow takes 3 s to write 200,000 of them, and an upload holds ten times as many."""
    numbers = struct.pack("<HHII", 0x9000, 5, 1000, 38) + bytes(4) + bytes(8000)
    tags = b"Exif\0\0II*\0\x08\0\0\0\2\0" + struct.pack("<HHIHH", 0x0111, 3, 1, 6, 0) + numbers
    turned = [
        encode(ramp(), format, exif=tags).replace(b"\x11\1\3\0\1\0\0\0", b"\x12\1\3\0\1\0\0\0")
        for format in ("JPEG", "WEBP", "AVIF")
    ]

    def fails(*_):
        raise AssertionError("EXIF was written")

    monkeypatch.setattr("PIL.Image.Exif.tobytes", fails)
    assert [decode(data, LIMIT).size for data in turned] == [(48, 64), (48, 64), (64, 48)]


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_counts(format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("#f00", "#00f")]
    data = encode(frames[0], format, save_all=True, append_images=frames[1:])
    red, _, blue = decode(data, LIMIT).getpixel((4, 4))
    assert red > 250
    assert blue < 5


def test_what_later_frames_of_an_animation_claim_is_of_no_account():
    """The second of these would have four thousand megapixels."""
    data = encode(Image.new("L", (8, 8)), "GIF")
    later = b",\0\0\0\0\xff\xff\xff\xff\0\2\2\x44\1\0;"
    assert decode(data[:-1] + later, LIMIT).size == (8, 8)


@pytest.mark.parametrize(
    ("enough", "width"), [(None, 1000), (376, 1000), (375, 500), (100, 250), (50, 125)]
)
def test_a_large_jpeg_is_decoded_to_as_little_as_is_enough(enough, width):
    data = encode(ramp().resize((1000, 750)), "JPEG")
    decoded = decode(data, LIMIT, enough)
    assert decoded.width == width
    assert difference(decoded.resize((64, 48)), ramp()) < 3


def test_a_turned_jpeg_is_reduced_by_its_shorter_side_too():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = encode(ramp().resize((1000, 750)), "JPEG", exif=exif)
    assert decode(data, LIMIT, 375).size == (375, 500)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_other_formats_are_decoded_whole(format):
    assert decode(encode(ramp(), format), LIMIT, 1).size == (64, 48)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_known_by_its_content(format):
    assert decode(encode(ramp(), format), LIMIT).size == (64, 48)


def test_a_format_that_is_not_on_the_list_is_not_tried():
    with pytest.raises(UnsupportedImage):
        decode(encode(ramp(), "ICO"), LIMIT)


def test_no_bytes_are_no_image():
    with pytest.raises(BadRequest, match="0 bytes"):
        decode(b"", LIMIT)


@pytest.mark.parametrize(
    "data",
    [b"hello", b"<html>", b"%PDF-1.4", b"%!PS-Adobe", bytes(1000), b"\xff", b"MMA and so on"],
)
def test_what_is_no_image_is_called_so(data):
    with pytest.raises(UnsupportedImage):
        decode(data, LIMIT)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_that_was_cut_off_is_damaged(format, share):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    data = encode(noise, format)
    with pytest.raises(DamagedImage):
        decode(data[: int(len(data) * share)], LIMIT)


def test_the_limit_is_checked_on_the_header_before_a_pixel_is_decoded():
    assert decode(picture(size=(10, 10)), 100)
    cut_after_header = picture(size=(10, 11))[:45]
    with pytest.raises(TooLarge, match="10 × 11 = 110 pixels"):
        decode(cut_after_header, 100)


def test_a_jpeg_that_goes_over_its_pixels_for_ever_is_too_large():
    assert decode(scan_bomb(20), LIMIT)
    with pytest.raises(TooLarge, match="scans"):
        decode(scan_bomb(200), LIMIT)


@pytest.mark.parametrize("case", BAD_IMAGES, ids=lambda case: case.name)
def test_every_bad_image_has_its_status(case):
    """With what production does about warnings, which is nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            status = 200 if decode(case.data, LIMIT, 20) else 0
        except RequestError as error:
            status = error.status
    assert status == case.status


def test_pillows_warnings_are_not_kept():
    """Each names numbers of a stranger's file, so every file would leave some behind."""
    code = """
import sys
from PIL import TiffImagePlugin
from predictor.images.decoding import decode
from predictor.errors import DamagedImage
for size in range(9, 99):
    try:
        decode(b"II*\\0" + bytes([size, 0, 0, 0]) + bytes(size), 100)
    except DamagedImage:
        pass
sys.exit(len(getattr(TiffImagePlugin, "__warningregistry__", ())))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_a_stranger_sends_starts_a_program(monkeypatch):
    def fails(*_args, **_kwargs):
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", fails)
    monkeypatch.setattr("os.system", fails)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF"
    for data in (postscript, b"\xc5\xd0\xd3\xc6" + bytes(30) + postscript, b"%PDF-1.7\n"):
        with pytest.raises(UnsupportedImage):
            decode(data, LIMIT)


def test_no_memory_is_no_fault_of_the_photo(monkeypatch):
    def fails(_image):
        raise MemoryError

    monkeypatch.setattr("predictor.images.decoding.to_rgb", fails)
    with pytest.raises(Overloaded):
        decode(picture(), LIMIT)


@pytest.mark.parametrize("side", [7_100, 9_500, 20_000, 60_000])
def test_a_decompression_bomb_is_too_large_whichever_guard_meets_it(side):
    with pytest.raises(TooLarge):
        decode(one_bit_png(side, side), LIMIT)


def test_pillows_own_warning_is_no_crash_where_warnings_are_not_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(TooLarge):
            decode(one_bit_png(9_500, 9_500), LIMIT)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]), st.data())
def test_whatever_is_done_to_a_file_the_error_is_ours(format, data):
    original = bytearray(encode(ramp(), format))
    for _ in range(data.draw(st.integers(1, 8))):
        original[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(1, len(original)))
    try:
        image = decode(bytes(original[:end]), 1_000_000)
    except RequestError:
        return
    assert image.mode == "RGB"
