"""TIFFs of bit depths, wide channels, floats and planes that Pillow does not read, or wrongly."""

import numpy as np
import pytest
from PIL import Image

from pictures import difference, encode, ramp
from predictor.errors import DamagedImage, TooLarge, UnsupportedImage
from predictor.images.decoding import decode
from wide_tiff import DEFLATE, RAW, tiff

LIMIT = 50_000_000
RNG = np.random.default_rng(0)


def noise(bits, channels=1, width=21, height=10):
    return RNG.integers(0, 1 << bits, (height, width, channels), np.uint64)


def in_8_bits(values, bits):
    """What a person would see: the upper 8 bits, or the fraction of white below 8 bits."""
    return values >> (bits - 8) if bits >= 8 else values * 255 // ((1 << bits) - 1)


def decoded(data):
    return np.asarray(decode(data, LIMIT))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [RAW, DEFLATE])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [*range(1, 18), 24, 31])
def test_unsigned_samples_of_every_depth(bits, channels, compression, order):
    values = noise(bits, channels)
    pixels = decoded(tiff(values, bits, order, compression=compression))
    assert (pixels == in_8_bits(values, bits)).all()


def test_12_bit_grey_of_the_smallest_file_is_white():
    assert decoded(tiff(np.full((1, 2, 1), 0xFFF), 12)).tolist() == [[[255] * 3] * 2]


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("layout", [{"planar": True}, {"tile": 16}, {"planar": True, "tile": 16}])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_planes_and_tiles(bits, layout, big):
    values = noise(bits, 3, 37, 20)
    for compression in (RAW, DEFLATE):
        pixels = decoded(tiff(values, bits, compression=compression, big=big, **layout))
        assert (pixels == in_8_bits(values, bits)).all()


def test_plane_in_one_strip_that_is_longer_than_the_image():
    values = noise(12, 3)
    pixels = decoded(tiff(values, 12, planar=True, rows_per_strip=1000))
    assert (pixels == in_8_bits(values, 12)).all()


def test_plane_without_meaning_is_left_out():
    values = noise(8, 2)
    for compression in (RAW, DEFLATE):
        data = tiff(values, 8, photometric=1, planar=True, extra=(0,), compression=compression)
        assert (decoded(data) == values[..., :1]).all()


def test_planes_whose_strips_do_not_fill_them_are_unsupported():
    with pytest.raises(UnsupportedImage, match="interleaved"):
        decode(tiff(noise(12, 3), 12, planar=True, rows_per_strip=7), LIMIT)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("channels", "bits"), [(1, 16), (3, 16), (1, 32), (3, 32)])
def test_differences_between_pixels_are_added_up(channels, bits, order):
    values = noise(16, channels).astype(np.int64) << (bits - 16)
    stored = np.diff(values, axis=1, prepend=0) & ((1 << bits) - 1)
    data = tiff(stored, bits, order, compression=DEFLATE, predictor=2)
    expected = values if bits == 16 else np.rint(stretch(values.astype(np.float32)) * 256)
    assert np.abs(decoded(data).astype(float) - np.floor(expected / 256)).max() <= 1


def stretch(values):
    return (values - values.min()) / (values.max() - values.min()) * 255


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1, 255, 4000])
def test_floats_are_fractions_or_8_bits_or_stretched(scale, channels, bits, order):
    floats = RNG.random((9, 10, channels)).astype(f"f{bits // 8}")
    floats[0, 0], floats[0, 1] = 0, 1
    stored = (floats * floats.dtype.type(scale)).view(f"u{bits // 8}")
    pixels = decoded(tiff(stored, bits, order, kind=3))
    assert np.abs(pixels - np.rint(floats.astype(float) * 255)).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("most", [65_535, 2**32 - 1])
def test_32_bit_integers_are_16_bits_or_stretched(most, order):
    values = np.linspace(0, most, 200).astype(np.uint64).reshape(10, 20, 1)
    pixels = decoded(tiff(values, 32, order))
    assert np.abs(pixels - np.rint(values / most * 255)).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_signed_integers_are_stretched(channels):
    values = np.linspace(-30_000, 30_000, 300).astype(np.int16).reshape(10, -1, channels)
    pixels = decoded(tiff(values.view(np.uint16), 16, kind=2))
    assert np.abs(pixels - np.rint(stretch(values.astype(float)))).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
def test_samples_of_undefined_kind_are_unsigned(bits, channels):
    values = noise(bits, channels)
    assert (decoded(tiff(values, bits, kind=4)) == in_8_bits(values, bits)).all()


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_white_is_zero(bits):
    values = noise(bits)
    pixels = decoded(tiff(values, bits, photometric=0))
    assert (pixels == 255 - in_8_bits(values, bits)).all()


@pytest.mark.parametrize("bits", [4, 12, 16])
@pytest.mark.parametrize(("photometric", "channels"), [(1, 2), (2, 4)])
def test_transparent_samples_become_white(photometric, channels, bits):
    values = noise(bits, channels)
    values[:5, :, -1], values[5:, :, -1] = 0, (1 << bits) - 1
    pixels = decoded(tiff(values, bits, photometric=photometric, extra=(2,)))
    assert (pixels[:5] == 255).all()
    assert (pixels[5:] == in_8_bits(values[5:, :, :-1], bits)).all()


def test_colour_multiplied_by_alpha_is_divided():
    values = np.array([[[2048, 1024, 0, 2048]]], np.uint64)
    pixels = decoded(tiff(values, 12, photometric=2, extra=(1,)))
    assert np.abs(pixels[0, 0].astype(int) - (255, 191, 127)).max() <= 2


def test_samples_that_are_not_colours_are_ignored():
    values = noise(12, 5)
    pixels = decoded(tiff(values, 12, photometric=2, extra=(0, 0)))
    assert (pixels == in_8_bits(values[..., :3], 12)).all()


@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_and_profile_stay(orientation):
    values = noise(12)
    pixels = decoded(tiff(values, 12, orientation=orientation))
    turned = np.rot90(in_8_bits(values, 12), {3: 2, 6: 3}[orientation])
    assert (pixels == turned).all()


@pytest.mark.parametrize("format", ["<u2", "<i4", "<f4"])
def test_files_that_pillow_writes_stay_the_same(format):
    grey = np.asarray(ramp().convert("L")).astype(format)
    image = Image.fromarray(grey * (257 if format != "<f4" else 1))
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "zstd"):
        assert difference(decode(encode(image, "TIFF", compression=compression), LIMIT), ramp()) < 3


def test_truncated_samples_are_damaged():
    data = tiff(noise(12), 12)
    for end in (len(data) - 10, len(data) - 150, 4100):
        with pytest.raises(DamagedImage):
            decode(data[:end], LIMIT)


def test_depth_or_channels_that_nobody_uses_are_refused():
    complex_numbers = [tiff(noise(32), 32, kind=kind) for kind in (5, 6)]
    channels = tiff(noise(12, 11), 12, photometric=2, extra=(0,) * 8)
    for data in (tiff(noise(40), 40), channels, *complex_numbers):
        with pytest.raises(DamagedImage):
            decode(data, LIMIT)


def test_size_counts_in_pixels():
    grey = noise(12)
    assert decode(tiff(grey, 12), 210)
    with pytest.raises(TooLarge, match="21 × 10 = 210 pixels"):
        decode(tiff(grey, 12), 209)


@pytest.mark.slow
def test_unpacking_is_charged():
    charged = []
    values = np.zeros((500, 1000, 1), np.uint8)
    for bits in (8, 12):
        decode(tiff(values, bits, rows_per_strip=500), LIMIT, charge=charged.append)
    assert charged[1] > charged[0] + 0.015
