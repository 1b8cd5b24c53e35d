"""PNG: metadata is left out, except a sound colour profile and the orientation."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from pictures import chunk, difference, encode, png, ramp
from predictor.errors import DamagedImage, TooLarge
from predictor.images import png as png_module
from predictor.images.decoding import decode

LIMIT = 50_000_000
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LONG, NOISE = bytes(2_000_000), random.Random(0).randbytes(1_200_000)
ZIPPED = zlib.compress(LONG)
METADATA = {
    "long tEXt": chunk(b"tEXt", b"workflow\0" + b"x" * 2_000_000),
    "long zTXt": chunk(b"zTXt", b"workflow\0\0" + ZIPPED),
    "long iTXt": chunk(b"iTXt", b"workflow\0\1\0\0\0" + ZIPPED),
    "long XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + ZIPPED),
    "long iCCP": chunk(b"iCCP", b"icc\0\0" + zlib.compress(NOISE)),
    "long eXIf": chunk(b"eXIf", b"MM\0*\0\0\0\x08" + NOISE),
    "long eXIf as text": chunk(b"zTXt", b"Raw profile type exif\0\0" + ZIPPED),
    "zTXt of an unknown method": chunk(b"zTXt", b"k\0\7abc"),
    "zTXt that is cut off": chunk(b"zTXt", b"k\0\0" + ZIPPED[:20]),
    "iTXt that is not UTF-8": chunk(b"iTXt", b"k\0\0\0\0\0\xff\xfe"),
    "tEXt without a keyword": chunk(b"tEXt", b"\0\0\0"),
    "empty chunks": b"".join(chunk(kind, b"") for kind in (b"iCCP", b"eXIf", b"zTXt", b"iTXt")),
    "iCCP of an unknown method": chunk(b"iCCP", b"icc\0\7abc"),
    "iCCP without a name": chunk(b"iCCP", b"icc"),
    "iCCP that is not zlib": chunk(b"iCCP", b"icc\0\0" + NOISE[:100]),
    "two profiles": chunk(b"iCCP", b"icc\0\0" + zlib.compress(SRGB)) * 2,
    "wrong checksum": chunk(b"tEXt", b"k\0hello")[:-4] + b"abcd",
    "wrong checksum of iCCP": chunk(b"iCCP", b"k\0\0" + zlib.compress(SRGB))[:-4] + b"abcd",
    "short pHYs, gAMA and cHRM": b"".join(chunk(k, b"1") for k in (b"pHYs", b"gAMA", b"cHRM")),
    "2,000 texts": chunk(b"zTXt", b"k\0\0" + ZIPPED) * 2000,
}


def with_chunks(data: bytes, *chunks: bytes, at_end: bool = False) -> bytes:
    """Insert chunks after the header, or before the end."""
    at = len(data) - 12 if at_end else 33
    return data[:at] + b"".join(chunks) + data[at:]


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("name", METADATA)
def test_png_with_large_or_broken_metadata_is_decoded(name, at_end):
    data = with_chunks(encode(ramp()), METADATA[name], at_end=at_end)
    assert difference(decode(data, LIMIT), ramp()) == 0


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pixels_stay_when_metadata_is_left_out(mode):
    grey = Image.fromarray(np.asarray(ramp().convert("L")).astype("<u2") * 257)
    plain = encode(grey if mode == "I;16" else ramp().convert(mode))
    assert (
        difference(decode(with_chunks(plain, METADATA["long zTXt"]), LIMIT), decode(plain, LIMIT))
        == 0
    )


def test_animation_and_transparent_colour_stay():
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("#f00", "#00f"))
    animation = encode(red, save_all=True, append_images=[blue])
    assert decode(with_chunks(animation, METADATA["long iTXt"]), LIMIT).getpixel((4, 4))[0] == 255
    clear = encode(red, transparency=(255, 0, 0))
    assert decode(with_chunks(clear, METADATA["long iTXt"]), LIMIT).getpixel((4, 4)) == (255,) * 3


def test_metadata_is_not_decompressed(monkeypatch):
    unpacked = []
    monkeypatch.setattr(
        PngImagePlugin, "_safe_zlib_decompress", lambda data: unpacked.append(data) or b""
    )
    decode(with_chunks(encode(ramp()), *METADATA.values()), LIMIT)
    assert unpacked == []


def test_sound_profile_stays_beside_broken_metadata():
    data = encode(ramp(), icc_profile=SRGB)
    checked = png_module.check(with_chunks(data, METADATA["long zTXt"], at_end=True))
    with Image.open(io.BytesIO(checked.data)) as image:
        assert image.info["icc_profile"] == SRGB


def exif_as_text(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    digits = tags.tobytes().hex()
    return f"\nexif\n{len(digits) // 2}\n{digits}\n"


@pytest.mark.parametrize("way", ["eXIf", "eXIf at the end", "tEXt", "zTXt", "XMP"])
def test_orientation_stays_beside_broken_metadata(way):
    tags, info = Image.Exif(), PngImagePlugin.PngInfo()
    tags[0x0112] = 6
    if way in ("tEXt", "zTXt"):
        info.add_text("Raw profile type exif", exif_as_text(6), zip=way == "zTXt")
    elif way == "XMP":
        info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    data = encode(ramp(), pnginfo=info, **({"exif": tags} if way == "eXIf" else {}))
    chunks = [METADATA["long zTXt"], METADATA["long tEXt"]]
    if way == "eXIf at the end":
        chunks.append(chunk(b"eXIf", tags.tobytes()[6:]))
    assert decode(with_chunks(data, *chunks, at_end=True), LIMIT).size == (48, 64)


def test_png_of_many_pieces_is_decoded():
    rows = zlib.compress(bytes(8 * 25), 0)
    pieces = b"".join(chunk(b"IDAT", rows[at : at + 1]) for at in range(len(rows)))
    data = png((8, 8), 8, 2, b"")
    at = data.index(b"IDAT") - 4
    assert decode(data[:at] + pieces + chunk(b"IEND", b""), LIMIT).size == (8, 8)


def test_png_of_too_many_chunks_is_too_large():
    with pytest.raises(TooLarge, match="6,000 chunks"):
        decode(with_chunks(encode(ramp()), chunk(b"tEXt", b"") * 6_000), LIMIT)


def test_png_that_was_filled_up_with_zeros_is_damaged():
    """Zeros are not counted as chunks. A download that was broken off may end with megabytes."""
    data = encode(ramp())
    with pytest.raises(DamagedImage):
        decode(data[: len(data) // 2] + bytes(1_000_000), LIMIT)
    assert decode(data + bytes(1_000_000), LIMIT)


def test_only_the_first_profile_is_unpacked(monkeypatch):
    tried = []
    monkeypatch.setattr(png_module, "_unpacks", lambda *args: tried.append(args) or False)
    assert decode(with_chunks(encode(ramp()), METADATA["long iCCP"] * 9), LIMIT)
    assert len(tried) <= 1


def test_file_without_metadata_is_not_copied():
    data = encode(ramp())
    assert png_module.check(data).data is data


MARK = b"\x5a\xa5\xc3\x3c\x96"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of each type of colour


def rows_png(kind, depth, rows, size, interlaced=False, *before):
    """A PNG whose compressed data ends, correctly, after these bytes."""
    header = struct.pack(">IIBBBBB", *size, depth, kind, 0, 0, interlaced)
    palette = [chunk(b"PLTE", bytes(768))] if kind == 3 else []
    parts = [chunk(b"IHDR", header), *before, *palette, chunk(b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


@pytest.mark.parametrize("value", [b"\0", b"\xff", MARK, bytes(byte ^ 255 for byte in MARK)])
@pytest.mark.parametrize(
    ("kind", "depth"), [(0, 1), (0, 2), (0, 8), (0, 16), (2, 8), (2, 16), (3, 8), (4, 8), (6, 16)]
)
def test_png_whose_data_ends_before_its_last_row_is_damaged(monkeypatch, kind, depth, value):
    """Also where the rows are what the memory holds before they are decoded."""
    monkeypatch.setattr("os.urandom", lambda _: MARK)
    size = 64 * CHANNELS[kind] * depth // 8
    row = b"\0" + (value * size)[:size]
    assert decode(rows_png(kind, depth, row * 60, (64, 60)), LIMIT).size == (64, 60)
    for rows in (0, 1, 30, 59, 59.99):
        data = rows_png(kind, depth, (row * 60)[: int(len(row) * rows)], (64, 60))
        with pytest.raises(DamagedImage):
            decode(data, LIMIT)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (16, 1), (1, 2), (5, 2), (7, 9), (64, 63)])
def test_interlaced_png_whose_data_ends_early_is_damaged(monkeypatch, size):
    monkeypatch.setattr("os.urandom", lambda _: MARK)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
              (0, 1, 1, 2)]  # fmt: skip
    rows = b"".join(
        b"\0" + MARK[:1] * len(range(x, size[0], dx))
        for x, y, dx, dy in passes
        if x < size[0]
        for _ in range(y, size[1], dy)
    )
    assert decode(rows_png(0, 8, rows, size, True), LIMIT).size == size
    for end in (len(rows) - 1 - size[0], len(rows) - 1):
        with pytest.raises(DamagedImage):
            decode(rows_png(0, 8, rows[:end], size, True), LIMIT)


def test_first_frame_of_an_animation_has_all_rows():
    row, control = b"\0" + bytes(64), struct.pack(">5I2H2B", 0, 64, 60, 0, 0, 1, 1, 0, 0)
    before = chunk(b"acTL", struct.pack(">II", 1, 0)), chunk(b"fcTL", control)
    assert decode(rows_png(0, 8, row * 60, (64, 60), False, *before), LIMIT).size == (64, 60)
    with pytest.raises(DamagedImage):
        decode(rows_png(0, 8, row * 30, (64, 60), False, *before), LIMIT)
