"""TIFF: tags, tiles and groups of EXIF."""

import struct
import zlib
from contextlib import nullcontext

import pytest
from PIL import Image, TiffImagePlugin

from bad_images import tiff
from pictures import encode, jpeg_tiff, slow_scans
from predictor.errors import DamagedImage, TooLarge
from predictor.images import tiff as tiff_module
from predictor.images.decoding import decode

LIMIT = 50_000_000


@pytest.mark.parametrize("orientation", [1, 6])
def test_tiff_tiles_are_counted_whole(orientation):
    """Each of 20 tiles of 3 megapixels has 16 pixels of the image in its first column.

    Of a turned image, Pillow gives the size after turning.
    """
    tiles = (322, 4, 1, 187_504), (323, 4, 1, 16), (324, 4, 20, 200), (325, 4, 20, 200)
    size = (256, 4, 1, 16), (257, 4, 1, 320)
    kind = (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (274, 3, 1, orientation), (277, 3, 1, 1)
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


def test_tiff_whose_tiles_share_their_data_is_too_large():
    """Each use costs as much as the first, and the file is charged once."""
    jpeg = encode(Image.effect_noise((64, 64), 50), "JPEG")
    with pytest.raises(TooLarge, match="share"):
        decode(jpeg_tiff(jpeg, 64, 3, shared=True), LIMIT)


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_only_strip_may_claim_more_bytes_than_there_are(cut):
    data = bytearray(encode(Image.effect_noise((64, 48), 50), "TIFF"))
    fields = struct.unpack_from("<H", data, struct.unpack_from("<I", data, 4)[0])[0]
    begin = struct.unpack_from("<I", data, 4)[0] + 2
    for entry in range(begin, begin + 12 * fields, 12):
        if struct.unpack_from("<H", data, entry)[0] == 279:
            struct.pack_into("<I", data, entry + 8, 64 * 48 + cut * 1000)
    assert decode(bytes(data), LIMIT).size == (64, 48)


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


def block_tiff(content, *tags, size=64):
    """A grey TIFF whose strip or tile begins at byte 400."""
    first = (256, 4, 1, size), (257, 4, 1, size), (258, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)
    return tiff(*first, *tags)[:400].ljust(400, b"\0") + content


@pytest.mark.parametrize("kind", [1, 6, 8, 9, 13, 16, 17, 18])
@pytest.mark.parametrize("tag", [256, 259, 278, 279])
def test_tag_that_readers_read_differently_is_refused(tag, kind):
    """libtiff takes the first of two values, Pillow the last, and libtiff alone types 17 and 18."""
    tags = (259, 3, 1, 1), (273, 4, 1, 400), (278, 4, 1, 64), (279, 4, 1, 4096)
    decode(block_tiff(bytes(4096), *tags), LIMIT)
    with pytest.raises(DamagedImage):
        decode(block_tiff(bytes(4096), (tag, kind, 1, 0), *tags), LIMIT)


@pytest.mark.parametrize("kind", [3, 4, 16])
def test_compression_of_any_type_with_a_progressive_jpeg_is_too_large(kind):
    value = (259, kind, 1, 7 if kind < 16 else 200)
    data = block_tiff(slow_scans(64, 64, 9), value, (273, 4, 1, 400))
    with pytest.raises(TooLarge, match="progressive"):
        decode(data[:200] + struct.pack("<Q", 7) + data[208:], LIMIT)


STRIPS, TILES = ((273, 4, 1, 400), (278, 4, 1, 32)), ((322, 4, 1, 32), (323, 4, 1, 32))


@pytest.mark.parametrize("compression", [1, 5, 8])
@pytest.mark.parametrize("blocks", [STRIPS, (*TILES, (324, 4, 1, 400)), (*TILES, (273, 4, 1, 400))])
def test_tiff_with_missing_strips_or_tiles_is_damaged(blocks, compression):
    content = encode(Image.new("L", (64, 64)), "TIFF")[-4096:]
    content = {1: content, 5: b"\x80\0\x40" * 9, 8: zlib.compress(content)}[compression]
    with pytest.raises(DamagedImage) as error:
        decode(block_tiff(content, (259, 3, 1, compression), *blocks), LIMIT)
    assert isinstance(error.value.__cause__, ValueError)


@pytest.mark.parametrize(
    "blocks",
    [
        ((273, 4, 1, 400), (278, 4, 1, 64), (325, 4, 1, 4096)),
        ((322, 4, 1, 64), (323, 4, 1, 64), (324, 4, 1, 400), (279, 4, 1, 4096)),
    ],
    ids=["strips", "tiles"],
)
def test_strips_have_no_fields_of_tiles_and_tiles_none_of_strips(blocks):
    """libtiff takes either."""
    with pytest.raises(DamagedImage):
        decode(block_tiff(bytes(8192), (259, 3, 1, 1), *blocks), LIMIT)


@pytest.mark.parametrize(("count", "sound"), [(4095, False), (4096, True), (0, True)])
def test_rows_of_a_raw_tiff_are_in_its_strips(count, sound):
    """A count of 0 is not known: libtiff reckons it, too."""
    data = block_tiff(bytes(8192), (259, 3, 1, 1), (273, 4, 1, 400), (279, 4, 1, count))
    with nullcontext() if sound else pytest.raises(DamagedImage):
        decode(data, LIMIT)


@pytest.mark.parametrize(("left", "sound"), [(1, True), (0.99, False), (0.5, False)])
def test_jpeg_in_a_tiff_is_whole(left, sound):
    content = encode(Image.effect_noise((64, 64), 50), "JPEG")
    size = int(len(content) * left)
    strip = (259, 3, 1, 7), (273, 4, 1, 400), (278, 4, 1, 64), (279, 4, 1, size + 2 * sound)
    with nullcontext() if sound else pytest.raises(DamagedImage):
        decode(block_tiff(content + bytes(2), *strip), LIMIT)


@pytest.mark.parametrize(("height", "scans"), [(640, 1), (64, 5)])
def test_jpeg_in_a_tiff_is_as_large_as_its_strip_and_has_few_scans(height, scans):
    """libtiff lets the last strip be higher, and decodes all scans: 1.6 kB took 0.7 s."""
    content = encode(Image.effect_noise((64, height), 50), "JPEG")
    scan = content[content.index(b"\xff\xda") : -2]
    content = content[:-2] + scan * (scans - 1) + content[-2:]
    strip = (259, 3, 1, 7), (273, 4, 1, 400), (278, 4, 1, 64), (279, 4, 1, len(content))
    with pytest.raises(TooLarge, match="many scans, or larger than its strip"):
        decode(block_tiff(content, *strip), LIMIT)


def test_jpeg_in_a_tiff_without_its_size_is_damaged():
    """It cannot be looked at."""
    content = encode(Image.effect_noise((64, 64), 50), "JPEG")
    data = block_tiff(content, (259, 3, 1, 7), (273, 4, 1, 400), (278, 4, 1, 64))
    with pytest.raises(DamagedImage):
        decode(data, LIMIT)


def test_tiff_of_four_billion_channels_is_damaged():
    """As many numbers of bits would take 32 GB."""
    data = block_tiff(bytes(4096), (259, 3, 1, 1), (273, 4, 1, 400), size=8)
    one, many = (struct.pack("<HHII", 277, 4 - (n == 1), 1, n) for n in (1, 2**32 - 1))
    assert len(tiff_module._Tags(data.replace(one, many)).bits) == tiff_module.MAX_CHANNELS + 1
    with pytest.raises(DamagedImage):
        decode(data.replace(one, many), LIMIT)
