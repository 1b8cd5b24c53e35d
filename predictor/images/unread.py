"""Formats that are recognised and not read, so that the error can name them and say what to do."""

import re

from predictor.errors import UnsupportedImage

CONVERT = "Convert it to JPEG or PNG"
EXPORT = "Export it as PNG or JPEG"
DEVELOP = "Export it as JPEG in the camera's or a photo program"
FRAME = "Send one of its frames as JPEG"
HEIC = (
    "Convert it to JPEG: on an iPhone, Settings → Camera → Formats → Most Compatible takes JPEG"
    " from now on"
)
# Name, advice, and how such a file begins.
BEGINNINGS = (
    ("JPEG 2000", CONVERT, rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    ("JPEG XL", CONVERT, rb"\0\0\0\x0cJXL |\xff\x0a"),
    ("JPEG XR", CONVERT, rb"II\xbc"),
    ("camera RAW", DEVELOP, rb"II[*]\0....CR|IIR[OS]|MMOR|IIU\0|FUJIFILMCCD-RAW|FOVb|\0MRM"),
    ("SVG", EXPORT, rb"(?:\xef\xbb\xbf)?\s*(?:<svg|<(?:\?xml|!--|!DOCTYPE svg)[^\0]*?<svg)"),
    ("PDF", EXPORT, rb"(?:\xef\xbb\xbf)?\s*%PDF-"),
    ("PostScript or EPS", EXPORT, rb"%!PS|\xc5\xd0\xd3\xc6"),
    ("Photoshop (PSD)", EXPORT, rb"8BPS"),
    ("GIMP (XCF)", EXPORT, rb"gimp xcf"),
    ("icon (ICO or CUR)", CONVERT, rb"\0\0[\x01\x02]\0[^\0]\0"),
    ("icon (ICNS)", CONVERT, rb"icns"),
    ("OpenEXR", CONVERT, rb"v/1\x01"),
    ("Radiance HDR", CONVERT, rb"#\?R(?:ADIANC|GB)E"),
    ("DirectDraw surface (DDS)", CONVERT, rb"DDS |DDS\x7c"),
    ("Windows metafile (WMF or EMF)", EXPORT, rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF"),
    ("DjVu", EXPORT, rb"AT&TFORM"),
    ("DICOM", CONVERT, rb".{128}DICM"),
    ("FITS", CONVERT, rb"SIMPLE  ="),
    ("QOI", CONVERT, rb"qoif"),
    ("video (AVI)", FRAME, rb"RIFF....AVI "),
    ("video (WebM or Matroska)", FRAME, rb"\x1aE\xdf\xa3"),
    ("video (MPEG)", FRAME, rb"\0\0\x01[\xba\xb3]"),
    ("video (Windows Media)", FRAME, rb"0&\xb2u\x8ef\xcf\x11"),
    ("video (Flash)", FRAME, rb"FLV\x01"),
    ("video (MOV)", FRAME, rb"\0...(?:moov|mdat|wide|pnot|skip|free)"),
    ("ZIP archive", "Send the photo inside", rb"PK\x03\x04"),
    ("gzip archive", "Send the photo inside", rb"\x1f\x8b\x08"),
)
# In one pattern, of which the number of the group tells the format: every photo is looked at.
ANY_BEGINNING = re.compile(b"|".join(b"(%s)" % start for *_, start in BEGINNINGS), re.DOTALL)
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
HEAD = 4096  # bytes that are looked at
IMAGE_BRANDS = {b"mif1", b"mif2", b"mif3", b"msf1", b"miaf", b"1pic"}  # of any codec
VIDEO_BRANDS = {b"qt  ": "video (MOV)", b"crx ": "camera RAW", b"jp2 ": "JPEG 2000"}


def refuse(data: bytes) -> None:
    """Raise UnsupportedImage, with its name, if the file is in a known format that is not read."""
    if found := recognise(data):
        raise UnsupportedImage(message(*found))


def message(name: str, advice: str) -> str:
    """Say that the format with this name is not supported, and what to do."""
    return f"The file's format is {name}, which is not supported. {advice}."


def recognise(data: bytes) -> tuple[str, str] | None:
    """Return the name of a known format that is not read, and an advice; None for any other."""
    if data[4:8] == b"ftyp":
        return _by_brands(data)
    found = ANY_BEGINNING.match(data, 0, HEAD)
    return BEGINNINGS[found.lastindex - 1][:2] if found and found.lastindex else None


def _by_brands(data: bytes) -> tuple[str, str] | None:
    """Recognise a file of ISO/IEC 14496-12 by its brands: the main one, then compatible ones."""
    main = data[8:12]
    end = min(len(data), int.from_bytes(data[:4], "big"), HEAD)
    brands = {main, *(data[at : at + 4] for at in range(16, end, 4))}
    if brands & {b"avif", b"avis"}:
        return None
    if brands & HEIC_BRANDS:
        return "HEIC", HEIC
    if brands & IMAGE_BRANDS:  # without a codec's brand: by the type of its items
        if b"hvc1" in data[:HEAD]:
            return "HEIC", HEIC
        return None if b"av01" in data[:HEAD] else ("HEIF", HEIC)
    name = VIDEO_BRANDS.get(main, "video (MP4)")
    return name, DEVELOP if main == b"crx " else FRAME if name.startswith("video") else CONVERT
