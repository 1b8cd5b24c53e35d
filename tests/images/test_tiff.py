"""TIFF: tags, tiles and groups of EXIF."""

import struct

import pytest
from PIL import Image, TiffImagePlugin

from bad_images import tiff
from pictures import encode, jpeg_tiff, slow_scans
from predictor.errors import TooLarge
from predictor.images.decoding import decode

LIMIT = 50_000_000


def test_tiff_tiles_are_counted_whole():
    """Each of 20 tiles of 3 megapixels has 16 pixels of the image in its first column."""
    tiles = (322, 4, 1, 187_504), (323, 4, 1, 16), (324, 4, 20, 200), (325, 4, 20, 200)
    size = (256, 4, 1, 16), (257, 4, 1, 320)
    kind = (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)
    with pytest.raises(TooLarge, match="tiles"):
        decode(tiff(*size, *kind, *tiles), LIMIT)


def test_tiff_with_a_progressive_jpeg_is_too_large():
    with pytest.raises(TooLarge, match="progressive"):
        decode(jpeg_tiff(slow_scans(64, 64, 85), 64, 2), LIMIT)


@pytest.mark.parametrize("mode", ["L", "RGB", "YCbCr", "CMYK"])
def test_tiff_with_a_baseline_jpeg_is_decoded(mode):
    image = Image.effect_noise((64, 48), 50).convert(mode)
    assert decode(encode(image, "TIFF", compression="jpeg"), LIMIT)
    jpeg = encode(Image.effect_noise((64, 64), 50), "JPEG")
    assert decode(jpeg_tiff(jpeg, 64, 2), LIMIT).size == (128, 128)


def test_tiff_with_a_tag_of_many_rationals_is_too_large():
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[50714], tags.tagtype[50714] = (1.0,) * 1001, 5  # BlackLevel, of any number
    with pytest.raises(TooLarge, match="1,000 values"):
        decode(encode(Image.new("L", (9, 9)), "TIFF", tiffinfo=tags), LIMIT)


@pytest.mark.parametrize("order", ["<", ">"])
def test_groups_of_exif_in_a_tiff_are_not_read(monkeypatch, order):
    """Pillow unpacks all their values, which takes 4 µs for each: three times, if they overlap."""
    count, made = 20_000, []
    head = b"II*\0" if order == "<" else b"MM\0*"
    pairs = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
             (273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, 8), (279, 4, 1, 64)]  # fmt: skip
    pairs += [(34665, 4, 1, 200), (34853, 4, 1, 200), (40965, 4, 1, 200)]
    tags = b"".join(
        struct.pack(f"{order}HHI", tag, kind, number)
        + (struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value))
        for tag, kind, number, value in pairs
    )
    begin = struct.pack(f"{order}I", 8) + struct.pack(f"{order}H", len(pairs)) + tags + bytes(4)
    group = struct.pack(f"{order}HHHII", 1, 37000, 5, count, 218) + bytes(4) + bytes(8 * count)
    data = (head + begin).ljust(200, b"\0") + group
    monkeypatch.setattr("PIL.TiffImagePlugin.IFDRational", lambda *values: made.append(values))
    assert decode(data, LIMIT).size == (8, 8)
    assert made == []
