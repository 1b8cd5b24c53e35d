"""Encoded bytes → upright RGB image. The input may be hostile."""

import warnings
from collections.abc import Callable
from typing import Literal

from PIL import AvifImagePlugin, Image, WebPImagePlugin  # noqa: F401

from predictor.errors import (
    BadRequest,
    DamagedImage,
    Overloaded,
    PredictorError,
    TooLarge,
    UnsupportedImage,
)
from predictor.images import heif, jpeg, png, ppm, sandbox, tiff, unread, webp
from predictor.images.cost import DearImage, estimate
from predictor.images.limits import MAX_EXIF, Checked, LimitedFile, allow_reads, check_header
from predictor.images.profile import keep_profile

# Formats are recognised by content, never by file name. Rare formats are left out, and those that
# Pillow decodes with another program (EPS): each is one more parser for an attacker to try. HEIC is
# read, too, if pillow-heif is installed.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")

Charge = Callable[[float], None]
MOST_S = 60.0  # CPU seconds for an image that is not part of a request

ORIENTATION_TAG = 0x0112
MAX_ENTRIES = 1000  # of EXIF; cameras write some 50. 12,000 take 16 ms, and have 1 kB as gzip
# Pillow reads all values of the orientation's tag, of which there may be millions.
EXIF_NAMES = ("exif", "Raw profile type exif")
TRANSPOSE_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# With the plugins imported above, these are all of FORMATS. Otherwise Pillow would import 40 other
# plugins at the first photo, which takes 0.1 s.
Image.preinit()

# One processor for each image: the app decodes as many images at once as there are processors.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

# The texts of these warnings contain values from the file. Python remembers each text that it has
# shown, so memory would grow with every upload.
warnings.filterwarnings("ignore", module=r"PIL\.(Jpeg|Mpo|Tiff|Png|Gif|WebP|Avif|Bmp)ImagePlugin")


def decode(
    data: bytes,
    max_pixels: int,
    enough: int | None = None,
    charge: Charge = lambda _: None,
    alpha: bool = False,
    most_s: float = MOST_S,
) -> Image.Image:
    """Decode an image's first frame as a person would see it: upright, RGB, alpha over white.

    If the image has a colour profile, :func:`predictor.images.profile.to_srgb` has to convert what
    the caller uses of it. Such an image may be CMYK.

    AVIF, HEIC, TIFF and large lossless WebP are decoded in a process of their own.

    Args:
        data: a whole file in one of :data:`FORMATS`, or a HEIC.
        max_pixels: the most pixels that may be decoded, checked by the header before decoding.
        enough: a length in pixels. A JPEG is decoded at a half, a quarter or an eighth of its
            size if its shorter side stays at least this long. ``None`` decodes every pixel.
        charge: called before the pixels are decoded, with the estimated CPU seconds for that. It
            may raise an error to refuse the image.
        alpha: whether an image that has transparency becomes RGBA.
        most_s: the most CPU seconds of an image that is decoded in a process of its own.

    Raises:
        BadRequest: ``data`` is empty.
        UnsupportedImage: the file is not in one of the formats.
        TooLarge: the image has more than ``max_pixels``, or reading the file would take too long.
        OutOfTime: decoding took ``most_s``.
        DamagedImage: Pillow fails to decode the file for any other reason.
        Overloaded: there is not enough memory to decode the image.
    """
    if is_decoded_apart(data):
        return sandbox.decode(data, max_pixels, charge, alpha, most_s)
    return decode_here(data, max_pixels, enough, charge, alpha)


def is_decoded_apart(data: bytes) -> bool:
    """Return whether an image is decoded in a process of its own."""
    is_rare = data[4:8] == b"ftyp" or tiff.is_tiff(data) or webp.is_slow(data)
    return sandbox.AVAILABLE and is_rare and can_decode(data)


def decode_here(
    data: bytes, max_pixels: int, enough: int | None, charge: Charge, alpha: bool
) -> Image.Image:
    """Decode an image like :func:`decode`, in this process, without a limit of CPU seconds."""
    if not data:
        raise BadRequest("The image is empty: it has 0 bytes.")
    # Pillow's parsers raise many types (OSError, SyntaxError, struct.error, zlib.error, KeyError,
    # …). Each of them means that the client's file is damaged.
    try:
        return _decode(data, max_pixels, enough, charge, alpha)
    except (PredictorError, DearImage):
        raise
    except MemoryError:
        raise Overloaded(
            "The server does not have enough memory to decode the image now. Try again."
        ) from None
    except Exception as error:
        kind = "a HEIC" if heif.is_heic(data) else "an image"
        raise DamagedImage(
            f"The file looks like {kind} but cannot be decoded: it is damaged, truncated, or an"
            " unsupported variant. Send the original again, or save it anew as JPEG."
        ) from error


def _decode(
    data: bytes, max_pixels: int, enough: int | None, charge: Charge, alpha: bool
) -> Image.Image:
    checked = _check(data)
    with _open(checked.data, max_pixels) as image:
        size = checked.samples.size if checked.samples else image.size
        if enough is not None and not checked.lossless:
            image.draft(None, (enough, enough))
        check_header(image, image.size if checked.streamed else size, max_pixels)
        pixels = max(size[0] * size[1], checked.filled)
        charge(estimate(image, pixels, checked, len(data)))
        return keep_profile(_upright(_load(image, checked, enough)), data, alpha)


def _load(image: Image.Image, checked: Checked, enough: int | None) -> Image.Image:
    """Decode the pixels of an opened image."""
    allow_reads(image)
    if ppm.is_slow(image):
        return ppm.load(image, checked.data)
    png.load(image, checked.data) if image.format == "PNG" else image.load()
    if checked.coarse:
        jpeg.check_last_scan(image, checked.coarse, enough)
    png.scale_transparent_colour(image, checked.data)
    return checked.samples.unpack(image) if checked.samples else image


def _check(data: bytes) -> Checked:
    """Check a file before Pillow opens it, and leave out what it would read for nothing.

    Raises:
        UnsupportedImage: the file is not in one of the formats. No further check is made then:
            such a file is not sent to a process of its own, which limits what a check may take.
        TooLarge: Pillow would join, unpack or decompress too many parts one by one.
    """
    if data.startswith(jpeg.SIGNATURE):
        return jpeg.check(data)
    if data.startswith(png.SIGNATURE):
        return png.check(data)
    if not (heif.is_heic(data) and heif.can_read_heic()):
        unread.refuse(data)
    if not begins_like_an_image(data):
        raise UnsupportedImage(
            "This is not an image in a supported format. Send JPEG, PNG, WebP, GIF, BMP, TIFF,"
            " AVIF or PPM."
        )
    if tiff.is_tiff(data):
        return tiff.check(data)
    if data[8:12] == b"WEBP":
        return webp.check(data)
    return Checked(heif.without_metadata(data) if data[4:8] == b"ftyp" else data)


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header and return the image, not yet decoded."""
    if data.startswith(jpeg.SIGNATURE):
        return jpeg.open_image(data)
    if heif.is_heic(data):
        return heif.open_heic(data)
    try:
        return Image.open(LimitedFile(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        # Pillow has limits of its own. It raises the warning only where warnings are errors.
        raise TooLarge(
            f"The image has more than {max_pixels:,} pixels. Send a smaller image."
        ) from None


def begins_like_an_image(data: bytes) -> bool:
    """Return whether the data begins like one of the formats, or one that is named in an error."""
    accepts = (Image.OPEN[name][1] for name in FORMATS)
    is_read = any(accept(data[:16]) is True for accept in accepts if accept)
    return is_read or unread.recognise(data) is not None


def can_decode(data: bytes) -> bool:
    """Return whether the data begins like a format that :func:`decode` reads; 4 kB are enough."""
    if unread.recognise(data):
        return heif.is_heic(data) and heif.can_read_heic()
    return begins_like_an_image(data)


def file_suffixes() -> set[str]:
    """Return the file suffixes of the formats, in lower case, such as ``.jpg``."""
    suffixes = {suffix for suffix, name in Image.EXTENSION.items() if name in FORMATS}
    return suffixes | heif.SUFFIXES if heif.can_read_heic() else suffixes


def _upright(image: Image.Image) -> Image.Image:
    """Turn the image by its EXIF orientation. Ignore EXIF that cannot be read.

    ``ImageOps.exif_transpose`` would also encode all of the EXIF again. With a hostile file this
    can take minutes.
    """
    if any(len(image.info.get(name) or b"") > MAX_EXIF for name in EXIF_NAMES):
        return image
    if len(image.info.get("xmp") or b"") > MAX_EXIF:  # Pillow would search it, without a thread
        del image.info["xmp"]
    if _entries(image.info.get("exif") or b"") > MAX_ENTRIES:
        return image
    try:
        method = TRANSPOSE_BY_ORIENTATION[image.getexif()[ORIENTATION_TAG]]
    except Exception:  # such as KeyError, if it is upright
        return image
    turned = image.transpose(method)
    turned.info = image.info
    return turned


def _entries(exif: bytes) -> int:
    """Return how many entries the first directory of EXIF has."""
    exif = exif.removeprefix(b"Exif\0\0")
    order: Literal["big", "little"] = "big" if exif.startswith(b"MM") else "little"
    at = int.from_bytes(exif[4:8], order)
    return int.from_bytes(exif[at : at + 2], order)
