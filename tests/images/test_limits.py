import warnings

import pytest

from bad_images import BAD_IMAGES, tiff
from pictures import one_bit_png, picture, scan_bomb
from predictor.errors import RequestError, TooLarge
from predictor.images.decoding import decode

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


def test_jpeg_with_too_many_scans_is_too_large():
    assert decode(scan_bomb(20), LIMIT)
    with pytest.raises(TooLarge, match="scans"):
        decode(scan_bomb(200), LIMIT)


def test_tiff_tiles_are_counted_whole():
    """Each of 20 tiles of 3 megapixels has 16 pixels of the image in its first column."""
    tiles = (322, 4, 1, 187_504), (323, 4, 1, 16), (324, 4, 20, 200), (325, 4, 20, 200)
    size = (256, 4, 1, 16), (257, 4, 1, 320)
    kind = (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)
    with pytest.raises(TooLarge, match="tiles"):
        decode(tiff(*size, *kind, *tiles), LIMIT)


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
