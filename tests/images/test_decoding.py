import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from paths import ROOT
from pictures import chunk, difference, encode, picture, ramp
from predictor.errors import BadRequest, DamagedImage, Overloaded, RequestError, UnsupportedImage
from predictor.images.decoding import FORMATS, decode, file_suffixes

LIMIT = 50_000_000
ORIENTATION = 0x0112


def test_file_suffixes_are_those_of_the_formats():
    assert {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".avif"} <= file_suffixes()
    assert file_suffixes().isdisjoint({".eps", ".ico", ".txt"})


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_recognised_by_its_content(format):
    assert decode(encode(ramp(), format), LIMIT).size == (64, 48)


def test_format_not_on_the_list_is_unsupported():
    with pytest.raises(UnsupportedImage):
        decode(encode(ramp(), "ICO"), LIMIT)


@pytest.mark.parametrize(
    "data",
    [b"hello", b"<html>", b"%PDF-1.4", b"%!PS-Adobe", bytes(1000), b"\xff", b"MMA and so on"],
)
def test_data_that_is_not_an_image_is_unsupported(data):
    with pytest.raises(UnsupportedImage):
        decode(data, LIMIT)


def test_empty_data_is_a_bad_request():
    with pytest.raises(BadRequest, match="0 bytes"):
        decode(b"", LIMIT)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_truncated_file_is_damaged(format, fraction):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    data = encode(noise, format)
    with pytest.raises(DamagedImage):
        decode(data[: int(len(data) * fraction)], LIMIT)


def test_png_without_its_last_data_chunk_is_damaged():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
    data = encode(noise)
    last = data.rindex(b"IDAT") - 4
    assert data.count(b"IDAT") > 1
    with pytest.raises(DamagedImage):
        decode(data[:last] + chunk(b"IEND", b""), LIMIT)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]), st.data())
def test_corrupted_file_raises_only_request_errors(format, data):
    original = bytearray(encode(ramp(), format))
    for _ in range(data.draw(st.integers(1, 8))):
        original[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(1, len(original)))
    try:
        image = decode(bytes(original[:end]), 1_000_000)
    except RequestError:
        return
    assert image.mode == "RGB"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(orientation, format):
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
def test_unreadable_exif_is_ignored():
    data = encode(ramp(), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff garbage")
    assert decode(data, LIMIT).size == (64, 48)


def test_exif_is_never_encoded_again(monkeypatch):
    """Pillow takes 3 s to encode 200,000 numbers, and an upload may hold ten times as many."""
    numbers = struct.pack("<HHII", 0x9000, 5, 1000, 38) + bytes(4) + bytes(8000)
    tags = b"Exif\0\0II*\0\x08\0\0\0\2\0" + struct.pack("<HHIHH", 0x0111, 3, 1, 6, 0) + numbers
    turned = [
        encode(ramp(), format, exif=tags).replace(b"\x11\1\3\0\1\0\0\0", b"\x12\1\3\0\1\0\0\0")
        for format in ("JPEG", "WEBP", "AVIF")
    ]

    def fails(*_):
        raise AssertionError("EXIF was encoded")

    monkeypatch.setattr("PIL.Image.Exif.tobytes", fails)
    assert [decode(data, LIMIT).size for data in turned] == [(48, 64), (48, 64), (64, 48)]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_orientation_of_millions_of_rationals_is_not_read(monkeypatch, format):
    """Pillow takes 6 µs for each of them."""
    count = 7000 if format == "JPEG" else 200_000
    tag = struct.pack("<HHII", ORIENTATION, 5, count, 26) + bytes(4)
    exif = b"Exif\0\0II*\0\x08\0\0\0\1\0" + tag + bytes(8 * count)
    data, made = encode(ramp(), format, exif=exif), []
    monkeypatch.setattr("PIL.TiffImagePlugin.IFDRational", lambda *values: made.append(values))
    assert decode(data, LIMIT).size == (64, 48)
    assert len(made) <= 7000


@pytest.mark.parametrize(("others", "size"), [(999, (48, 64)), (1000, (64, 48))])
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
@pytest.mark.parametrize("order", [("II*\0", "<"), ("MM\0*", ">")])
def test_orientation_among_a_thousand_tags_is_not_read(order, format, others, size):
    """12,000 tags take 16 ms, and have 1 kB as gzip."""
    mark, sign = order[0].encode(), order[1]
    tags = struct.pack(f"{sign}HHIHH", ORIENTATION, 3, 1, 6, 0)
    tags += b"".join(struct.pack(f"{sign}HHII", 500 + tag, 4, 1, 0) for tag in range(others))
    exif = mark + struct.pack(f"{sign}IH", 8, others + 1) + tags + bytes(4)
    assert decode(encode(ramp(), format, exif=exif), LIMIT).size == size


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_is_decoded_to_its_first_frame(format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("#f00", "#00f")]
    data = encode(frames[0], format, save_all=True, append_images=frames[1:])
    red, _, blue = decode(data, LIMIT).getpixel((4, 4))
    assert red > 250
    assert blue < 5


def test_size_of_later_animation_frames_is_ignored():
    """The second frame declares 65,535 × 65,535 pixels."""
    data = encode(Image.new("L", (8, 8)), "GIF")
    later = b",\0\0\0\0\xff\xff\xff\xff\0\2\2\x44\1\0;"
    assert decode(data[:-1] + later, LIMIT).size == (8, 8)


@pytest.mark.parametrize(
    ("enough", "width"), [(None, 1000), (376, 1000), (375, 500), (100, 250), (50, 125)]
)
def test_large_jpeg_is_decoded_at_a_reduced_size(enough, width):
    data = encode(ramp().resize((1000, 750)), "JPEG")
    decoded = decode(data, LIMIT, enough)
    assert decoded.width == width
    assert difference(decoded.resize((64, 48)), ramp()) < 3


def test_rotated_jpeg_is_reduced_by_its_shorter_side():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = encode(ramp().resize((1000, 750)), "JPEG", exif=exif)
    assert decode(data, LIMIT, 375).size == (375, 500)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_other_formats_are_decoded_at_full_size(format):
    assert decode(encode(ramp(), format), LIMIT, 1).size == (64, 48)


def test_pillow_warnings_do_not_accumulate():
    """Their texts contain numbers from the file, so each upload would add some."""
    code = """
import sys
from PIL import TiffImagePlugin
from predictor.images.decoding import decode_here
from predictor.errors import DamagedImage
for size in range(9, 99):
    try:
        data = b"II*\\0" + bytes([size, 0, 0, 0]) + bytes(size)
        decode_here(data, 100, None, lambda _: None, False)
    except DamagedImage:
        pass
sys.exit(len(getattr(TiffImagePlugin, "__warningregistry__", ())))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_photo_makes_pillow_import_more_plugins():
    """It has 40, which take 0.1 s."""
    code = """
import sys
from predictor.images.decoding import begins_like_an_image, decode
from predictor.errors import UnsupportedImage
begins_like_an_image(b"text")
try:
    decode(b"text", 100)
except UnsupportedImage:
    sys.exit("PIL.PdfImagePlugin" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_decoding_never_starts_a_program(monkeypatch):
    def fails(*_args, **_kwargs):
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", fails)
    monkeypatch.setattr("os.system", fails)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF"
    for data in (postscript, b"\xc5\xd0\xd3\xc6" + bytes(30) + postscript, b"%PDF-1.7\n"):
        with pytest.raises(UnsupportedImage):
            decode(data, LIMIT)


def test_out_of_memory_is_overloaded_and_not_damaged(monkeypatch):
    def fails(_image):
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fails)
    with pytest.raises(Overloaded):
        decode(picture(), LIMIT)


def test_xmp_turns_a_photo_only_if_it_is_short():
    """Pillow searches it with a regular expression, while all other threads wait."""
    xmp = b'<x tiff:Orientation="6"/>'
    sizes = [
        decode(encode(Image.new("RGB", (4, 3)), "WEBP", xmp=xmp + bytes(more)), 99).size
        for more in (0, 150_000)
    ]
    assert sizes == [(3, 4), (4, 3)]
