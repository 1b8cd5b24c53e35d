"""JPEG: segments and scans are counted; a missing end is mended; the reduced size counts."""

import random
import struct

import pytest
from PIL import Image
from skimage import data as photographs

from pictures import difference, encode, jpeg_of_zeros, scan_bomb, slow_scans
from predictor.errors import DamagedImage, TooLarge
from predictor.images import jpeg
from predictor.images.cost import SCAN_NS
from predictor.images.decoding import decode

LIMIT = 50_000_000


def test_jpeg_with_too_many_scans_is_too_large():
    assert decode(scan_bomb(20), LIMIT)
    with pytest.raises(TooLarge, match="scans"):
        decode(scan_bomb(200), LIMIT)


@pytest.mark.parametrize("marker", [0x01, 0x02, 0xBF, 0xD0, 0xD7])
@pytest.mark.parametrize("interval", [b"", b"\xff\xdd\0\4\0\1"], ids=["", "restarts"])
def test_marker_without_a_length_hides_no_scans(marker, interval):
    """The decoder skips some of these."""
    data = slow_scans(64, 48, 200)
    scan = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    hides = bytes([0xFF, marker, 0xFF, 0xFF])
    with pytest.raises(TooLarge, match="scans"):
        decode(data[:2] + interval + data[2:scan] + hides + data[scan:], LIMIT)


def test_jpeg_of_reserved_markers_is_too_large():
    """They have no length, so there may be millions of them."""
    data = encode(CAT, "JPEG")
    with pytest.raises(TooLarge, match="segments"):
        decode(data[:2] + b"\xff\x02" * 101 + data[2:], LIMIT)


def test_jpeg_of_many_segments_of_many_kinds_is_too_large():
    data = encode(CAT, "JPEG")
    segments = b"".join(bytes([0xFF, 0xE2 + kind, 0, 2]) for kind in range(10)) * 100
    assert decode(data[:2] + segments[: 4 * 980] + data[2:], LIMIT)
    with pytest.raises(TooLarge, match="1,000 of all kinds"):
        decode(data[:2] + segments + data[2:], LIMIT)


def test_jpeg_that_ends_before_its_first_scan_is_damaged():
    """Pillow ignores that end, and reads what follows."""
    data = encode(CAT, "JPEG")
    exif = b"\xff\xe1\0\x08Exif\0\0" * 600
    with pytest.raises(DamagedImage):
        decode(data[:2] + b"\xff\xd9" + exif + data[2:], LIMIT)


def test_arithmetic_coding_is_charged_four_times():
    """Its scans are as short, and take longer."""
    charged = []
    for frame in (b"\xff\xc2", b"\xff\xca"):
        data = slow_scans(4000, 3000, 8).replace(b"\xff\xc2", frame)

        def charge(seconds):
            charged.append(seconds)
            raise TooLarge("enough")

        with pytest.raises(TooLarge, match="enough"):
            decode(data, LIMIT, charge=charge)
    scans = 9 * 12e6 * SCAN_NS / 1e9
    assert charged[1] - charged[0] == pytest.approx(3 * scans)


def test_jpeg_with_much_exif_is_too_large():
    """Pillow reads its resolution, of which there may be millions of values."""
    data = encode(Image.new("L", (9, 9)), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", 60_008) + b"Exif\0\0" + bytes(60_000)
    assert decode(data[:2] + segment * 2 + data[2:], LIMIT)
    with pytest.raises(TooLarge, match="EXIF"):
        decode(data[:2] + segment * 3 + data[2:], LIMIT)


CAT = Image.fromarray(photographs.chelsea())
KINDS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "one component": {"keep": "L"},
    "one component, progressive": {"keep": "L", "progressive": True},
    "four components": {"keep": "CMYK"},
    "restarts": {"restart_marker_rows": 1},
    "not subsampled": {"subsampling": 0},
    "not subsampled, progressive": {"subsampling": 0, "progressive": True},
}
TRAILERS = {
    "zeros": bytes(16),
    "film": b"\0\0\0\x18ftypmp42" + random.Random(1).randbytes(300_000),
    "another film": b"\0\0\0\x18ftypmp42" + random.Random(2).randbytes(300_000),
    "phone's fields": b"\0\0\x01\n\x0e\0\0\0Image_UTC_Data1700000000000SEFH\0\xff\x17",
    "another photo": b"\0\0\xff\xd8\xff\xe0\0\x10JFIF" + bytes(100),
    "text": b"END" * 30_000,
    "table": b"\xff\xc4\0\x05abc\xff\xda\0\x09abcdefg",
}


def cat(keep="RGB", **options):
    return encode(CAT.convert(keep), "JPEG", **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost", [1, 2, 4, 8])
def test_jpeg_without_its_last_bytes_is_decoded(kind, lost):
    data = cat(**KINDS[kind])
    assert difference(decode(data[:-lost], LIMIT), decode(data, LIMIT)) < 0.2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trailer", TRAILERS)
def test_jpeg_with_a_trailer_in_place_of_its_end_is_decoded(kind, trailer):
    data = cat(**KINDS[kind])
    decoded = decode(data[:-2] + TRAILERS[trailer], LIMIT)
    assert difference(decoded, decode(data, LIMIT)) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tail", [b"", b"\xff\x17" + bytes(100), *TRAILERS.values()][:4])
@pytest.mark.parametrize("percent", [10, 30, 50, 70, 90])
def test_jpeg_with_missing_rows_is_damaged(kind, tail, percent):
    data = cat(**KINDS[kind])
    with pytest.raises(DamagedImage):
        decode(data[: len(data) * percent // 100] + tail[:100], LIMIT)


@pytest.mark.parametrize("progressive", [False, True])
def test_flat_jpeg_without_its_end_is_decoded(progressive):
    """Its last scan changes no pixel."""
    data = encode(Image.new("RGB", (300, 200), "grey"), "JPEG", progressive=progressive)
    assert decode(data[:-2], LIMIT).getpixel((299, 199)) == (128,) * 3


def test_second_decoding_of_a_progressive_jpeg_is_charged():
    data, charged = cat(progressive=True), []
    for file in (data, data[:-2]):
        decode(file, LIMIT, charge=charged.append)
    assert charged[1] == pytest.approx(2 * charged[0], rel=0.01)


def test_baseline_jpeg_counts_at_its_reduced_size():
    data = encode(CAT.resize((1600, 1200)), "JPEG")
    assert decode(data, 30_000, 150).size == (200, 150)
    with pytest.raises(TooLarge, match="1600 × 1200"):
        decode(data, 30_000)
    with pytest.raises(TooLarge, match="200 × 150"):
        decode(data, 29_999, 150)


def test_progressive_jpeg_counts_at_its_full_size():
    data = encode(CAT.resize((1600, 1200)), "JPEG", progressive=True)
    assert decode(data, 1_920_000, 150).size == (200, 150)
    with pytest.raises(TooLarge, match=r"1,920,000 pixels.*progressive"):
        decode(data, 1_919_999, 150)


def test_baseline_jpeg_of_several_scans_counts_at_its_full_size():
    """Its decoder keeps all coefficients, as for a progressive JPEG."""
    data = encode(CAT, "JPEG", subsampling=0)
    header = data.index(b"\xff\xda")
    scan = b"\xff\xda\0\x08\1\1\0\0\x3f\0"  # of the first component only
    with pytest.raises(TooLarge):
        decode(data[:header] + scan + data[header + 14 :], CAT.width * CAT.height - 1, 30)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(12_000, 9_000), (16_320, 12_240)])
def test_photo_of_a_108_or_200_megapixel_phone_is_decoded(size):
    charged = []
    data = encode(CAT.resize(size), "JPEG", quality=50)
    decoded = decode(data, LIMIT, 255, charged.append)
    assert decoded.size == (size[0] // 8, size[1] // 8)
    assert difference(decoded.resize(CAT.size), CAT) < 5
    assert charged[0] < 3
    assert decode(data[:-2], LIMIT, 255).size == decoded.size


def test_long_film_in_place_of_the_end_is_not_searched(monkeypatch):
    searched = []
    monkeypatch.setattr(jpeg, "search", lambda *args: searched.append(args[2]) or original(*args))
    data = cat()[:-2]
    jpeg.check(data + random.Random(3).randbytes(2_000_000))
    assert max(searched) < len(data)


original = jpeg.search


def test_lossless_jpeg_is_decoded_at_its_own_size():
    """It has no coefficients, of which a part would give a reduced size."""
    data = jpeg_of_zeros(1200, frame=0xC3, size=180_000)
    assert decode(data, 2_000_000, enough=256).getcolors() == [(1_440_000, (128, 128, 128))]


def test_progressive_jpeg_of_zeros_is_decoded_at_a_reduced_size():
    assert decode(jpeg_of_zeros(1200), 2_000_000, enough=256).size == (300, 300)
