"""TIFF: strips, tiles and JPEGs inside that are missing or cut off."""

import struct
import zlib
from contextlib import nullcontext

import pytest
from PIL import Image

from hostile import block_tiff
from pictures import encode, jpeg_tiff
from predictor.errors import DamagedImage
from predictor.images.decoding import decode

LIMIT = 50_000_000


@pytest.mark.parametrize("mode", ["L", "RGB", "YCbCr", "CMYK"])
def test_tiff_with_a_baseline_jpeg_is_decoded(mode):
    image = Image.effect_noise((64, 48), 50).convert(mode)
    assert decode(encode(image, "TIFF", compression="jpeg"), LIMIT)
    jpeg = encode(Image.effect_noise((64, 64), 50), "JPEG")
    assert decode(jpeg_tiff(jpeg, 64, 2), LIMIT).size == (128, 128)


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_only_strip_may_claim_more_bytes_than_there_are(cut):
    data = bytearray(encode(Image.effect_noise((64, 48), 50), "TIFF"))
    fields = struct.unpack_from("<H", data, struct.unpack_from("<I", data, 4)[0])[0]
    begin = struct.unpack_from("<I", data, 4)[0] + 2
    for entry in range(begin, begin + 12 * fields, 12):
        if struct.unpack_from("<H", data, entry)[0] == 279:
            struct.pack_into("<I", data, entry + 8, 64 * 48 + cut * 1000)
    assert decode(bytes(data), LIMIT).size == (64, 48)


STRIPS, TILES = ((273, 4, 1, 400), (278, 4, 1, 32)), ((322, 4, 1, 32), (323, 4, 1, 32))


@pytest.mark.parametrize("compression", [1, 5, 8])
@pytest.mark.parametrize("blocks", [STRIPS, (*TILES, (324, 4, 1, 400)), (*TILES, (273, 4, 1, 400))])
def test_tiff_with_missing_strips_or_tiles_is_damaged(blocks, compression):
    content = encode(Image.new("L", (64, 64)), "TIFF")[-4096:]
    content = {1: content, 5: b"\x80\0\x40" * 9, 8: zlib.compress(content)}[compression]
    with pytest.raises(DamagedImage):
        decode(block_tiff(content, (259, 3, 1, compression), *blocks), LIMIT)


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
