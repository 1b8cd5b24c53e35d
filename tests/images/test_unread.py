"""Formats that are not read are named in the error."""

import struct
import sys

import numpy as np
import pytest
from PIL import Image

from pictures import encode, ramp
from predictor.errors import DamagedImage, PredictorError, UnsupportedImage
from predictor.images.decoding import FORMATS, begins_like_an_image, decode
from predictor.images.unread import recognise
from wide_tiff import tiff

LIMIT = 50_000_000
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'


def ftyp(main: bytes, *compatible: bytes, rest: bytes = bytes(200)) -> bytes:
    """The beginning of an ISO media file."""
    brands = main + bytes(4) + b"".join(compatible)
    return struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + rest


def raw(*tags: tuple[int, int, int]) -> bytes:
    """A TIFF of 2 × 2 grey pixels, as a raw image's preview, with more tags."""
    pixels = ((256, 3, 2), (257, 3, 2), (258, 3, 8), (262, 3, 1), (273, 4, 8), (279, 4, 4))
    fields = sorted([*pixels, *tags])
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in fields)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(fields)) + entries + bytes(50)


FILES = {
    "JPEG 2000": [encode(ramp(), "JPEG2000"), b"\xff\x4f\xff\x51\0\x29" + bytes(50)],
    "JPEG XL": [b"\xff\x0a" + bytes(50), b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a" + bytes(50)],
    "camera RAW": [
        b"II*\0\x10\0\0\0CR\2\0" + bytes(50),
        ftyp(b"crx ", b"isom"),
        raw((50706, 1, 0x401)),
        raw((254, 4, 1), (330, 4, 100)),
        raw((330, 13, 100), (254, 4, 1)),
        tiff(np.zeros((2, 2, 1), int), 16, photometric=32803),
        b"FUJIFILMCCD-RAW 0201",
        b"IIU\0" + bytes(30),
        b"IIRO\x08\0\0\0" + bytes(30),
    ],
    "SVG": [SVG, b'<?xml version="1.0"?>\n<!-- a -->\n' + SVG, b"\xef\xbb\xbf\n" + SVG],
    "PDF": [b"%PDF-1.7 and so on", b"\n%PDF-1.4"],
    "PSD": [b"8BPS\0\1" + bytes(50)],
    "ICO": [encode(ramp(), "ICO"), b"\0\0\2\0\1\0" + bytes(50)],
    "video (MP4)": [ftyp(b"isom", b"mp41"), ftyp(b"mp42"), ftyp(b"M4V "), ftyp(b"3gp5")],
    "video (MOV)": [ftyp(b"qt  "), b"\0\0\0\x08wide\0\0\0\x08mdat" + bytes(30)],
    "video (WebM": [b"\x1aE\xdf\xa3" + bytes(30)],
    "video (AVI)": [b"RIFF\0\0\1\0AVI LIST" + bytes(30)],
    "PostScript": [b"%!PS-Adobe-3.0 EPSF-3.0\n"],
    "DICOM": [bytes(128) + b"DICM" + bytes(9)],
    "ZIP": [b"PK\x03\x04" + bytes(100)],
    "HEIC": [
        *(ftyp(brand, b"mif1", b"heic") for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")),
        *(ftyp(brand) for brand in (b"heic", b"heim", b"heis", b"hevx")),
        ftyp(b"mif1", b"miaf", rest=b"\0\0\0\x14infe\2\0\0\0\0\1\0\0hvc1" + bytes(100)),
    ],
}


@pytest.mark.parametrize("name", FILES)
def test_known_format_is_named_with_an_advice(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # it reads HEIC
    for data in FILES[name]:
        with pytest.raises(UnsupportedImage, match=r"(Export|Convert|Send)") as caught:
            decode(data, LIMIT)
        assert name in str(caught.value)


@pytest.mark.parametrize("format", FORMATS)
def test_supported_format_is_not_taken_for_another(format):
    assert recognise(encode(ramp(), format)) is None


def test_avif_of_any_brands_is_decoded():
    data = encode(ramp(), "AVIF")
    assert decode(data.replace(b"ftypavif", b"ftypmif1", 1), LIMIT)


def test_tiff_with_a_preview_tag_only_is_decoded():
    assert decode(raw((254, 4, 1)), LIMIT).size == (2, 2)


def test_unread_image_as_body_is_not_taken_for_a_form():
    assert begins_like_an_image(ftyp(b"heic"))
    assert begins_like_an_image(SVG)
    assert not begins_like_an_image(b"file=abc")


@pytest.mark.parametrize("data", [b"ftyp", b"\0\0\0\x08ftyp", b"\xff\xff\xff\xffftypheic", b"<svg"])
def test_short_beginnings_are_refused(data):
    with pytest.raises(PredictorError):
        decode(data, LIMIT)


def test_damaged_file_of_a_supported_format_stays_damaged():
    with pytest.raises(DamagedImage):
        decode(encode(Image.new("L", (9, 9)), "AVIF")[:60], LIMIT)
