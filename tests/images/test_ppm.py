"""PPM and PGM of other depths than 8 bits."""

import io

import numpy as np
import pytest
from PIL import Image

from predictor.errors import DamagedImage
from predictor.images.decoding import decode


def ppm(kind, width, height, greatest, samples):
    head = f"{kind} {width} {height} {greatest}\n".encode()
    return head + samples.astype(">u2" if greatest > 255 else np.uint8).tobytes()


def noise(count, greatest):
    return np.random.default_rng(0).integers(0, greatest + 1, count)


@pytest.mark.parametrize("greatest", [1, 100, 254, 256, 1000, 65534, 65535])
def test_colours_are_those_of_pillow(greatest):
    data = ppm("P6", 40, 30, greatest, noise(40 * 30 * 3, greatest))
    with Image.open(io.BytesIO(data)) as expected:
        assert decode(data, 10_000).tobytes() == expected.tobytes()


@pytest.mark.parametrize("greatest", [1, 100, 254, 256, 1000, 65534, 65535])
def test_greatest_value_of_grey_is_white(greatest):
    samples = np.array([0, greatest // 2, greatest])
    decoded = np.asarray(decode(ppm("P5", 3, 1, greatest, samples), 10))
    assert decoded[0, :, 0] == pytest.approx(samples * 255 / greatest, abs=0.51)


def test_value_above_the_greatest_is_white():
    decoded = decode(ppm("P6", 1, 1, 100, np.array([50, 100, 255])), 10)
    assert decoded.getpixel((0, 0)) == (128, 255, 255)


def test_photo_of_16_bits_has_as_many_pixels_as_any():
    assert decode(ppm("P6", 3000, 2000, 65535, noise(18_000_000, 65535)), 6_000_000).height == 2000


def test_truncated_file_is_damaged():
    data = ppm("P6", 40, 30, 1000, noise(40 * 30 * 3, 1000))
    with pytest.raises(DamagedImage):
        decode(data[:-1], 10_000)
