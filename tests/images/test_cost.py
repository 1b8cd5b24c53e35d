"""What images cost by their header, and which of them a request can pay for."""

import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data as skimage_data

from bad_images import run_length_bmp
from heic import grid_of_one_tile, heic
from hostile import tiff_of_large_tiles
from pictures import encode, jpeg_of_zeros, one_bit_png, png, slow_scans
from predictor.errors import TooCostly
from predictor.images.cost import Budget
from predictor.images.decoding import decode
from predictor.images.preprocessing import Preprocessing
from predictor.images.sandbox import thread_seconds
from profiles import PROPHOTO, cmyk_profile

MAX_PIXELS, ENOUGH, TIMEOUT_S = 50_000_000, 512, 30
PREPROCESS = Preprocessing((224, 224), 256, Image.Resampling.BILINEAR, (0, 0, 0), (1, 1, 1))


def flat(megapixels, mode="RGB"):
    return Image.new(mode, (4000, megapixels * 250))


def photo(megapixels):
    cat = Image.fromarray(skimage_data.chelsea())
    return cat.resize((4000, megapixels * 250), Image.Resampling.BILINEAR)


def lossless_webp(megapixels):
    """38 bytes."""
    return encode(flat(megapixels), "WEBP", lossless=True, method=0, quality=0)


def estimated(data, enough=ENOUGH):
    """The CPU seconds that the header announces. No pixel is decoded."""
    seconds = []

    def stop(estimate):
        seconds.append(estimate)
        raise TooCostly("stop")

    with pytest.raises(TooCostly):
        decode(data, MAX_PIXELS, enough, stop)
    return seconds[0]


def accepted(images):
    """How many images of a request its budget allows."""
    budget, count = Budget(sum(map(len, images))), 0
    for image in images:
        try:
            budget.charge(TIMEOUT_S / 2, MAX_PIXELS, estimated(image))
        except TooCostly:
            continue
        count += 1
    return count


def measured(data):
    began = thread_seconds()
    PREPROCESS(decode(data, MAX_PIXELS, ENOUGH))
    return thread_seconds() - began


COSTLY = {
    "48-megapixel webp of 38 bytes": lambda: lossless_webp(48),
    "48-megapixel avif of a kilobyte": lambda: encode(flat(48), "AVIF", speed=10),
    "49-megapixel heic of one tile": lambda: grid_of_one_tile(heic(flat(1)), 7, (28_000, 1750)),
    "40-megapixel bilevel tiff of 376 bytes": lambda: encode(
        Image.new("1", (20_000, 2000)), "TIFF", compression="group4"
    ),
    "49-megapixel cmyk jpeg of 163 bytes": lambda: jpeg_of_zeros(7000, 4, 4),
    "49-megapixel jpeg of one of 4 components": lambda: jpeg_of_zeros(7000, 4, 1, 0xC0),
    "48-megapixel jpeg of 60 slow scans": lambda: slow_scans(8000, 6000, 60),
}
HONEST = {
    "12-megapixel webp of one colour": lambda: lossless_webp(12),
    "12-megapixel png of one colour": lambda: encode(flat(12)),
    "12-megapixel transparent png of one colour": lambda: encode(flat(12, "RGBA")),
    "12-megapixel gif of one colour": lambda: encode(flat(12, "P"), "GIF"),
    "12-megapixel avif": lambda: encode(photo(12), "AVIF", speed=10),
    "1-megapixel heic": lambda: heic(photo(1)),
    "1-megapixel heic of tiles with 10 bits": lambda: heic(photo(1), 10, tile_size=512),
    "12-megapixel png with a profile": lambda: encode(photo(12), icc_profile=PROPHOTO),
    "12-megapixel cmyk jpeg with a profile": lambda: encode(
        photo(12).convert("CMYK"), "JPEG", icc_profile=cmyk_profile()
    ),
    "12-megapixel webp": lambda: encode(photo(12), "WEBP", method=0),
    "12-megapixel progressive jpeg": lambda: encode(photo(12), "JPEG", progressive=True),
    "50-megapixel jpeg": lambda: encode(photo(50), "JPEG"),
    "50-megapixel progressive jpeg": lambda: encode(photo(50), "JPEG", progressive=True),
    "50-megapixel one-bit png": lambda: one_bit_png(5000, 10_000),
    "16-bit png": lambda: png((4000, 3000), 16, 6, bytes(32_001) * 3000),
    "tiff": lambda: encode(photo(12), "TIFF", compression="tiff_lzw"),
    "bmp": lambda: encode(photo(4), "BMP"),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", COSTLY.values(), ids=COSTLY)
def test_costly_image_in_few_bytes_is_refused_by_its_header(make):
    data = make()
    budget = Budget(len(data))
    charge = partial(budget.charge, TIMEOUT_S, MAX_PIXELS)
    with pytest.raises(TooCostly, match=r"about \d\.\d+ s of processor time; at most [01]\.\d+ s"):
        decode(data, MAX_PIXELS, None, charge)
    assert budget.spent_s == 0


@pytest.mark.slow
@pytest.mark.parametrize("make", HONEST.values(), ids=HONEST)
def test_honest_image_is_within_the_budget(make):
    assert accepted([make()]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("make", (COSTLY | HONEST).values(), ids=COSTLY | HONEST)
def test_estimate_is_not_far_from_the_measured_cost(make):
    """Processors differ: on one EPYC HEIC of 10 bits takes 2.8 times its estimate, and on a newer
    one, which is twice as fast, a progressive JPEG a sixth.
    """
    data = make()
    seconds = min(measured(data) for _ in range(3))
    assert 0.25 * seconds < estimated(data) < 10 * seconds


@pytest.mark.slow
@pytest.mark.parametrize("frame", [0xC0, 0xC2])
@pytest.mark.parametrize("components", [1, 3, 4])
def test_estimate_of_a_jpeg_whose_samples_are_in_memory_is_not_too_low(components, frame):
    """At a reduced size, which is what a server decodes, its own pixels cost almost nothing."""
    data = jpeg_of_zeros(4000, components, 1 if frame == 0xC0 else components, frame)
    assert estimated(data) > 0.5 * min(measured(data) for _ in range(3))


def test_tile_of_a_tiff_that_is_larger_than_the_image_is_paid_for():
    small, large = (tiff_of_large_tiles(side, side, 1) for side in (64, 4096))
    assert estimated(small) < 0.01
    assert estimated(large) > 0.1


def test_interlaced_png_costs_more_than_another():
    plain, interlaced = (png((3000, 3000), 8, 2, b"", interlaced=way) for way in (0, 1))
    assert estimated(interlaced) > 1.5 * estimated(plain)


def test_every_photo_of_the_examples_is_within_the_budget():
    folder = Path(skimage_data.__file__).parent
    images = [
        path.read_bytes() for end in ("png", "jpg", "gif") for path in folder.glob("*." + end)
    ]
    assert len(images) > 5
    assert accepted(images) == len(images)


@pytest.mark.parametrize(
    ("image", "most"),
    [
        pytest.param(lossless_webp(16), 1, id="webp"),
        pytest.param(slow_scans(4000, 4000, 60), 2, id="jpeg"),
    ],
)
def test_of_64_tiny_costly_images_few_are_accepted(image, most):
    assert accepted([image] * 64) <= most * 64 * len(image) / 1000


def test_64_screenshots_are_accepted():
    screenshot = np.zeros((2160, 3840, 3), np.uint8)
    screenshot[::40] = 255
    assert accepted([encode(Image.fromarray(screenshot))] * 64) == 64


def test_a_reduced_jpeg_costs_less_than_a_whole_one():
    data = encode(photo(4), "JPEG")
    assert estimated(data, 100) < estimated(data, None) / 2


def test_refused_image_is_not_charged():
    budget = Budget(1000)
    with pytest.raises(
        TooCostly, match=r"about 0\.610 s of processor time; at most 0\.600 s are accepted"
    ):
        budget.charge(TIMEOUT_S, MAX_PIXELS, 0.61)
    budget.charge(TIMEOUT_S, MAX_PIXELS, 0.4)
    with pytest.raises(TooCostly, match=r"at most 0\.200 s are left"):
        budget.charge(TIMEOUT_S, MAX_PIXELS, 0.3)


def test_bytes_cannot_buy_more_than_the_limits_of_image_and_request():
    budget = Budget(10**9)
    with pytest.raises(TooCostly, match=r"at most 3\.000 s"):
        budget.charge(TIMEOUT_S, MAX_PIXELS, 3.1)
    with pytest.raises(TooCostly, match=r"at most 1\.000 s"):
        budget.charge(1, MAX_PIXELS, 1.1)


def test_a_tiny_bmp_that_is_decoded_in_python_is_refused_by_its_header():
    """Pillow appends the pixels of an unfinished line one by one."""
    header = struct.pack("<IiiHHIIiiII", 40, 99_999, 50, 1, 8, 1, 4, 0, 0, 1, 0)
    data = b"BM" + struct.pack("<IHHI", 62, 0, 0, 58) + header + bytes(4) + b"\1\0\0\0"
    assert estimated(data) > 0.6
    assert accepted([data]) == 0


def test_each_byte_of_a_bmp_that_is_read_alone_costs_something():
    """Such as skips of no pixels, which draw nothing."""
    skips = run_length_bmp(64, 64, b"\0\2\0\0" * 16_000 + b"\x40\1\0\0" * 64)
    assert estimated(skips) > 0.5 * min(measured(skips) for _ in range(3))
    assert estimated(skips + bytes(10**6)) < 0.2


def test_a_colour_profile_costs_something_and_more_with_tables():
    def added(profile, mode):
        image = Image.new(mode, (99, 99))
        with_profile = encode(image, "TIFF", icc_profile=profile)
        return estimated(with_profile) - estimated(encode(image, "TIFF"))

    assert 0.003 < added(PROPHOTO, "RGB") < 0.01
    assert 0.03 < added(cmyk_profile(), "CMYK") < 0.05
    assert 0.03 < added(cmyk_profile().replace(b"CMYK", b"RGB "), "RGB") < 0.05


def test_each_strip_of_a_tiff_costs_something():
    few, many = (
        encode(Image.new("L", (1, 9000)), "TIFF", tiffinfo={278: rows}) for rows in (9000, 1)
    )
    assert estimated(many) > estimated(few) + 0.08


def test_lzma_is_charged_more_than_other_compressions():
    charged = []
    for compression in ("tiff_lzw", "lzma"):
        image = encode(Image.new("RGB", (1000, 1000)), "TIFF", compression=compression)
        decode(image, 2_000_000, charge=charged.append)
    assert charged[1] > 3 * charged[0]
