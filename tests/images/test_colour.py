import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from pictures import chunk, difference, encode, png, ramp
from predictor.images.decoding import decode

LIMIT = 50_000_000


def lab(image: Image.Image) -> Image.Image:
    srgb, profile = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(srgb, profile, "RGB", "LAB")
    return ImageCms.applyTransform(image, transform)


def wide(image: Image.Image, dtype: str, scale: float) -> Image.Image:
    """The image in grey with more than 8 bits."""
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
def test_every_colour_mode_is_converted_to_the_right_rgb(format, image):
    decoded = decode(encode(image, format), LIMIT)
    assert decoded.mode == "RGB"
    assert difference(decoded, ramp()) < 3


def test_big_endian_16_bit_grey_is_converted_correctly():
    grey = wide(ramp(), "<u2", 257)
    swapped = np.asarray(grey).astype(">u2").tobytes()
    image = Image.frombytes("I;16B", grey.size, swapped)
    assert difference(decode(encode(image, "TIFF"), LIMIT), ramp()) < 3


def test_16_bit_tiff_with_white_as_zero_is_not_inverted():
    grey = wide(ramp(), "<u2", 257)
    negative = Image.fromarray(65535 - np.asarray(grey))
    data = bytearray(encode(negative, "TIFF"))
    entry = data.index(struct.pack("<HHI", 262, 3, 1))
    data[entry + 8 : entry + 10] = bytes(2)
    assert difference(decode(bytes(data), LIMIT), ramp()) < 3


def test_one_bit_image_stays_black_and_white():
    image = Image.new("1", (8, 8))
    image.paste(1, (0, 0, 4, 8))
    colours = decode(encode(image), LIMIT).getcolors()
    assert sorted(colours) == [(32, (0, 0, 0)), (32, (255, 255, 255))]


def test_infinite_and_nan_pixels_become_black():
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
def test_transparent_pixels_become_white(data):
    assert decode(data, LIMIT).getpixel((4, 4)) == (255, 255, 255)


def test_half_transparent_black_becomes_grey():
    data = encode(Image.new("RGBA", (4, 4), (0, 0, 0, 128)))
    assert decode(data, LIMIT).getpixel((0, 0)) == (127,) * 3


def test_transparent_16_bit_grey_is_compared_in_16_bits():
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
def test_transparent_colour_has_the_bit_depth_of_its_file(depth, colour, key, row, expected):
    data = png((2, 1), depth, colour, b"\0" + row, chunk(b"tRNS", key))
    assert np.asarray(decode(data, LIMIT))[0, :, 0].tolist() == expected


def test_alpha_is_kept_on_request():
    ramp_ = ramp()
    ramp_.putalpha(Image.linear_gradient("L").resize(ramp_.size))
    kept = decode(encode(ramp_), LIMIT, alpha=True)
    assert np.array_equal(np.asarray(kept), np.asarray(ramp_))
    assert decode(encode(ramp()), LIMIT, alpha=True).mode == "RGB"  # opaque


def test_transparent_grey_of_16_bits_is_kept_on_request():
    rows = b"".join(b"\0" + struct.pack(">2H", 0x1234, 0xFF00) for _ in range(2))
    data = png((2, 2), 16, 0, rows, chunk(b"tRNS", struct.pack(">H", 0x1234)))
    kept = decode(data, LIMIT, alpha=True)
    assert (kept.getpixel((0, 0))[3], kept.getpixel((1, 0))) == (0, (255,) * 4)
    assert decode(data, LIMIT).getpixel((0, 0)) == (255, 255, 255)
