import warnings

import pytest
from PIL import Image

from bad_images import BAD_IMAGES
from pictures import encode, one_bit_png, picture
from predictor.errors import RequestError, TooLarge
from predictor.images.decoding import decode
from predictor.images.jpeg import MARKER
from predictor.images.limits import search

LIMIT = 50_000_000


def test_pixel_limit_is_checked_before_decoding():
    assert decode(picture(size=(10, 10)), 100)
    cut_after_header = picture(size=(10, 11))[:45]
    with pytest.raises(TooLarge, match="10 × 11 = 110 pixels"):
        decode(cut_after_header, 100)


@pytest.mark.slow
@pytest.mark.parametrize("side", [7_100, 9_500, 20_000, 60_000])
def test_decompression_bomb_of_any_size_is_too_large(side):
    with pytest.raises(TooLarge):
        decode(one_bit_png(side, side), LIMIT)


def test_bomb_is_too_large_when_pillow_only_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(TooLarge):
            decode(one_bit_png(9_500, 9_500), LIMIT)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_image_of_many_rows_is_too_large(format):
    """Pillow allocates each row by itself."""
    assert decode(encode(Image.new("L", (1, 65_535)), format), LIMIT)
    with pytest.raises(TooLarge, match="70,000 rows"):
        decode(encode(Image.new("L", (1, 70_000)), format), LIMIT)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_image_of_many_columns_is_too_large(format):
    """They become rows where the image is turned."""
    assert decode(encode(Image.new("L", (200_000, 1)), format), LIMIT)
    with pytest.raises(TooLarge, match="300,000 columns"):
        decode(encode(Image.new("L", (300_000, 1)), format), LIMIT)


@pytest.mark.parametrize("at", [0, 5, 999_990, 999_999, 1_000_000, 2_100_000])
def test_search_finds_a_marker_at_any_place(at):
    data = bytes(at) + b"\xff\xc2\0\x11\x08" + bytes(10)
    assert search(MARKER, data, 0).start() == at


@pytest.mark.parametrize("case", BAD_IMAGES, ids=lambda case: case.name)
def test_every_bad_image_gets_its_status(case):
    """Warnings are ignored, as in production; in the tests they are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            status = 200 if decode(case.data, LIMIT, 20) else 0
        except RequestError as error:
            status = error.status
    assert status == case.status
