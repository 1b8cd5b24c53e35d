"""Limits for all formats: no small file may keep a parser busy for minutes or fill the memory.

Most of Pillow's parsers are written in Python, and some take quadratic time. The limits of one
format are in its own module.
"""

import io
import re
from typing import NamedTuple

from PIL import Image

from predictor.errors import TooLarge, UnsupportedImage
from predictor.images import ppm
from predictor.images.samples import Samples

# Reads of a header, before the image has paid for decoding. Photos need 50; a comment of 4 kB in a
# PPM is read byte by byte.
MAX_HEADER_READS = 5_000
MAX_READS = 200_000  # in all; run-length encoded BMP is read byte by byte
# Pillow allocates each row by itself, without letting other threads run. JPEG, WebP, GIF and AVIF
# have hardly more either.
MAX_ROWS = 65_535
MAX_COLUMNS = 200_000  # become rows if the image is turned; 20 million stop all others for 0.7 s
STEP = 1_000_000  # bytes that are searched while all other threads wait, which takes 20 ms
MAX_SLOW_PIXELS = 5_000_000  # if the decoder is in Python, as for run-length encoded BMP
MAX_EXIF = 150_000  # bytes; a camera's EXIF has at most 64 kB, as one segment of a JPEG limits it


class Checked(NamedTuple):
    """A file that has passed the checks of its format.

    Attributes:
        data: what Pillow will read: the file, perhaps without the metadata that is not needed.
        scans: how many scans a JPEG has.
        streamed: whether a JPEG is decoded row by row. Then a reduced size takes less memory.
        samples: how the samples of a TIFF are stored, if ``data`` has each byte as a grey pixel.
        coarse: a JPEG without its last scan, if that scan has to be compared; otherwise empty.
        lossless: whether a JPEG has no coefficients, so that no reduced size can be decoded.
        filled: how many pixels the strips or tiles of a TIFF have, which are decoded whole.
    """

    data: bytes
    scans: int = 1
    streamed: bool = False
    coarse: bytes = b""
    samples: Samples | None = None
    lossless: bool = False
    filled: int = 0


class LimitedFile(io.BytesIO):
    """A file in memory that may be read at most ``most`` times."""

    reads, most = 0, MAX_HEADER_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """Read like ``BytesIO.read``; raise TooLarge above the limit."""
        self.reads += 1
        if self.reads > self.most:
            raise TooLarge("The image consists of too many small pieces. Re-save it.")
        return super().read(size)


def allow_reads(image: Image.Image) -> None:
    """Let the pixels of an opened image be read, which has paid for them."""
    if isinstance(file := getattr(image, "fp", None), LimitedFile):
        file.most = MAX_READS


def search(pattern: re.Pattern[bytes], data: bytes, begin: int) -> re.Match[bytes] | None:
    """Find the first match, of at most 10 bytes, in steps that let other threads run."""
    for step in range(begin, len(data), STEP):
        if found := pattern.search(data, step, step + STEP + 10):
            return found
    return None


def check_header(image: Image.Image, size: tuple[int, int], max_pixels: int) -> None:
    """Check the header of an image, of which ``size`` is decoded.

    Raises:
        TooLarge: the image has too many pixels, also for a slow decoder, or rows or columns.
        UnsupportedImage: the image is a PPM as text.
    """
    pixels = size[0] * size[1]
    if pixels > max_pixels:
        advice = "Send a smaller image, or raise the setting PREDICTOR_MAX_PIXELS."
        if "progressive" in image.info:
            advice += " A progressive JPEG is decoded whole; a baseline JPEG may be larger."
        raise TooLarge(
            f"The image has {size[0]} × {size[1]} = {pixels:,} pixels; at most {max_pixels:,} are"
            f" accepted. {advice}"
        )
    columns, rows = image.size
    for name, found, most in (("columns", columns, MAX_COLUMNS), ("rows", rows, MAX_ROWS)):
        if found > most:
            raise TooLarge(f"The image has {found:,} {name}; at most {most:,} are accepted.")
    tile: list[tuple[str, ...]] = getattr(image, "tile", [])
    codec = tile[0][0] if tile else ""
    if codec == "ppm_plain":
        raise UnsupportedImage("A PPM as text (P1, P2, P3) is not supported. Re-save it as binary.")
    if codec in Image.DECODERS and codec != ppm.SLOW_CODEC and pixels > MAX_SLOW_PIXELS:
        raise TooLarge(
            f"An image with this compression may have at most {MAX_SLOW_PIXELS:,} pixels."
            " Save it as JPEG or PNG."
        )
