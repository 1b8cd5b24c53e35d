import struct
import warnings

import pytest
from PIL import Image, TiffImagePlugin

from bad_images import BAD_IMAGES, tiff
from pictures import avif_of_frames, encode, jpeg_tiff, one_bit_png, picture, scan_bomb, slow_scans
from predictor.errors import RequestError, TooLarge
from predictor.images import limits
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


def test_tiff_with_a_progressive_jpeg_is_too_large():
    with pytest.raises(TooLarge, match="progressive"):
        decode(jpeg_tiff(slow_scans(64, 64, 85), 64, 2), LIMIT)


@pytest.mark.parametrize("mode", ["L", "RGB", "YCbCr", "CMYK"])
def test_tiff_with_a_baseline_jpeg_is_decoded(mode):
    image = Image.effect_noise((64, 48), 50).convert(mode)
    assert decode(encode(image, "TIFF", compression="jpeg"), LIMIT)
    jpeg = encode(Image.effect_noise((64, 64), 50), "JPEG")
    assert decode(jpeg_tiff(jpeg, 64, 2), LIMIT).size == (128, 128)


def test_avif_with_many_frames_in_an_item_is_too_large():
    assert decode(avif_of_frames(2), LIMIT)
    with pytest.raises(TooLarge, match="AV1 frames"):
        decode(avif_of_frames(3), LIMIT)


def test_avif_whose_first_sample_has_many_frames_is_too_large():
    data = animated_avif()
    size = data.index(b"stsz") + 16  # of the first sample, which then has the others inside
    whole = len(data) - data.index(b"mdat") - 4
    with pytest.raises(TooLarge, match="AV1 frames"):
        decode(data[:size] + whole.to_bytes(4, "big") + data[size + 4 :], LIMIT)


@pytest.mark.parametrize("kind", [b"lsel", b"a1op", b"a1lx"])
def test_avif_with_layers_is_too_large(kind):
    with pytest.raises(TooLarge, match="layers"):
        decode(avif_of_frames(1).replace(b"pixi", kind), LIMIT)


def test_avif_in_pieces_is_too_large():
    data = avif_of_frames(1)
    extents = data.index(b"iloc") + 16
    with pytest.raises(TooLarge, match="pieces"):
        decode(data[:extents] + b"\0\2" + data[extents + 2 :], LIMIT)


def test_avif_frame_larger_than_its_picture_is_counted():
    size = b"ispe\0\0\0\0" + struct.pack(">II", 64, 48)
    data = avif_of_frames(1).replace(size, size[:8] + struct.pack(">II", 16, 12))
    assert decode(data, 64 * 48 // 2).size == (16, 12)
    with pytest.raises(TooLarge, match="frames"):
        decode(data, 64 * 48 // 2 - 1)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_image_of_many_rows_is_too_large(format):
    """Pillow allocates each row by itself."""
    assert decode(encode(Image.new("L", (1, 65_535)), format), LIMIT)
    with pytest.raises(TooLarge, match="70,000 rows"):
        decode(encode(Image.new("L", (1, 70_000)), format), LIMIT)


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


def test_jpeg_with_much_exif_is_too_large():
    """Pillow reads its resolution, of which there may be millions of values."""
    data = encode(Image.new("L", (9, 9)), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", 60_008) + b"Exif\0\0" + bytes(60_000)
    assert decode(data[:2] + segment * 2 + data[2:], LIMIT)
    with pytest.raises(TooLarge, match="EXIF"):
        decode(data[:2] + segment * 3 + data[2:], LIMIT)


@pytest.mark.parametrize("at", [0, 5, 999_990, 999_999, 1_000_000, 2_100_000])
def test_search_finds_a_marker_at_any_place(at):
    data = bytes(at) + b"\xff\xc2\0\x11\x08" + bytes(10)
    assert limits._search(limits.SLOW_JPEG, data, 0).start() == at


def test_avif_with_much_metadata_is_too_large():
    data = encode(Image.new("RGB", (64, 48)), "AVIF")
    at = data.index(b"meta") - 4
    (size,) = struct.unpack_from(">I", data, at)
    filling = struct.pack(">I4s", 1_000_008, b"free") + bytes(1_000_000)
    meta = struct.pack(">I", size + len(filling)) + data[at + 4 : at + size] + filling
    with pytest.raises(TooLarge, match="metadata"):
        decode(data[:at] + meta + data[at + size :], LIMIT)


def animated_avif():
    frame = Image.effect_noise((64, 48), 50)
    return encode(frame, "AVIF", save_all=True, append_images=[frame.rotate(n) for n in range(9)])


def test_animated_avif_with_alpha_and_exif_is_decoded():
    assert decode(animated_avif(), LIMIT)
    frame = Image.effect_noise((64, 48), 50).convert("RGBA")
    frame.putalpha(100)
    exif = Image.Exif()
    exif[0x010E] = "A picture"
    for options in ({}, {"save_all": True, "append_images": [frame.rotate(9)] * 5}):
        assert decode(encode(frame, "AVIF", exif=exif, **options), LIMIT)


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
