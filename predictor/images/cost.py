"""What decoding an image costs, estimated from its header, and what one request may spend on it.

Seconds are CPU seconds of one core, from the header to the resized pixels. The numbers were
measured with Pillow 13.0 on a Xeon of 2 cores: medians over photos, noise, flat colours and
hostile files of 0.5 to 48 megapixels. For most files the estimate is one to three times the
measured seconds. It is less than half for files made for that: a lossless WebP below 30 kB takes
0.05 s instead of 0.007, a TIFF of progressive JPEGs 2.4 times its estimate, one with groups of EXIF
0.4 s instead of 0.006. On an EPYC of 2 cores, AVIF and HEIC take up to 2.8 times their estimate.
Those are decoded in a process of its own, whose seconds are limited. What an image has really taken
is charged after it.
"""

import re
from dataclasses import dataclass
from math import inf

from PIL import Image, ImageMode

from predictor.errors import TooCostly
from predictor.images.jpeg import samples_per_pixel
from predictor.images.limits import MAX_READS, Checked
from predictor.images.webp import MAX_HERE

IMAGE_S = 0.004  # any image: a tiny one is enlarged to what the model needs
# Nanoseconds per byte of a decoded pixel: a flat 48-megapixel WebP of 38 bytes takes 0.79 s.
# BMP that is not raw is decoded in Python.
SAMPLE_NS = {"raw": 1, "JPEG": 1, "MPO": 1, "GIF": 3, "TIFF": 3, "BMP": 150, "HEIF": 6}
SAMPLE_NS["LZMA"] = 40  # in a TIFF
OTHER_SAMPLE_NS = 5  # PNG, WebP, AVIF and PPM
# Nanoseconds per pixel for a JPEG, at its full size, and for each of its scans: 90 scans of 48
# megapixels, in a file of 7 kB, take 4.3 s.
SCAN_NS = 1
# Nanoseconds per sample of a JPEG with several scans, or that lacks components: all samples are in
# memory, and are smoothed where scans are missing. At a reduced size, 8 bytes of zeros for 49
# megapixels of CMYK take 0.5 s.
SAMPLE_IN_MEMORY_NS = 2.5
# Nanoseconds per pixel to convert a mode to RGB, turn the image upright and resize it.
MODE_NS = {"RGB": 6, "L": 6, "1": 6, "P": 6, "CMYK": 10, "YCbCr": 10, "I;16": 10, "LAB": 28}
OTHER_MODE_NS = 16  # such as RGBA
TRANSPARENCY_NS = 10  # a transparent colour, or palette with transparent colours
UNPACK_NS = 35  # per sample of a TIFF that Pillow does not unpack; of 16 bits they take 9
# Seconds to prepare the conversion from a colour profile that no image had before: one with tables,
# as all have for CMYK and some for RGB, and any other.
TABLES, TABLES_S, PROFILE_S = b"A2B", 0.04, 0.005
TAGS_END = 1332  # where the list of the most tags that are read ends in a profile
TILE_NS = 10_000  # for each strip or tile of a TIFF
# Nanoseconds per pixel to receive it, in RGB, from the process that decoded it: a bilevel TIFF of
# 40 megapixels in 376 bytes takes 0.35 s there and 0.4 to 0.7 s here.
APART_NS, APART = 10, ("TIFF", "AVIF", "HEIF")
# Nanoseconds per byte of the file. This is what photos cost, and hostile files hardly.
# Of a BMP that is not raw, the bytes that may be read one by one count.
BYTE_NS = {"raw": 1, "PPM": 1, "BMP": 700, "WEBP": 40, "AVIF": 100, "HEIF": 130}
OTHER_BYTE_NS = 10

# The most for one image, per accepted pixel: 3 s with the default limit. The dearest honest images
# are PNGs of 16 bits with transparency.
IMAGE_NS_PER_PIXEL = 60
# The budget of a request: a client pays for decoding by sending bytes. The dearest honest photos
# are flat pictures of 12 megapixels, with 0.25 s in 38 bytes; usual photos cost 0.0003 s per kB.
FREE_S, BUDGET_S_PER_KB = 0.3, 0.3
# Bytes that must be sent for each image after the first. Otherwise 270 compressed bytes could hold
# 64 images, for which the model computes for seconds. The smallest PNG has 67 bytes.
LEAST_SENT = 64
# Seconds from which an image is dear: it waits among its like, one of which is decoded at a time.
# Usual photos cost 0.01 to 0.05 s. While flat WebP files of 0.24 s were not dear, 30 clients with
# them, of 579 bytes with the head, made the photos of others wait for 9 s (2 CPUs, November 2026).
DEAR_S = 0.1
# In the description of how Pillow decodes an image.
RAW = "[_Tile(codec_name='raw'"
SIXTEEN_BITS = re.compile(r"RGBA?;16")


def estimate(image: Image.Image, pixels: int, checked: Checked, size: int) -> float:
    """Return the CPU seconds of decoding an image whose header has been read.

    Args:
        image: not decoded yet. A JPEG may be set to a reduced size.
        pixels: how many pixels the file has: for a JPEG, at its full size.
        checked: what the check of its format has found.
        size: of the file, in bytes.
    """
    kind, mode = image.format or "", ImageMode.getmode(image.mode)
    tiles = getattr(image, "tile", []) if kind in ("PNG", "TIFF", "BMP", "PPM") else []
    tile = str(tiles[:1])
    if tile.startswith(RAW):
        kind = "raw"
    elif image.info.get("compression") == "lzma":
        kind = "LZMA"
    width = int(mode.typestr[-1]) * len(mode.bands)  # in bytes
    if SIXTEEN_BITS.search(tile):
        width *= 2
    pixel_ns = width * SAMPLE_NS.get(kind, OTHER_SAMPLE_NS)
    pixel_ns *= 2 if image.info.get("interlace") else 1
    pixel_ns += MODE_NS.get(mode.mode[:4], OTHER_MODE_NS)
    pixel_ns += TRANSPARENCY_NS * ("transparency" in image.info)
    apart = image.format in APART or (kind == "WEBP" and pixels > MAX_HERE)
    pixel_ns += APART_NS * apart
    if kind in ("JPEG", "MPO"):
        in_memory = 0.0 if checked.streamed else samples_per_pixel(image)
        decoded_ns = pixels * ((1 + checked.scans) * SCAN_NS + in_memory * SAMPLE_IN_MEMORY_NS)
        decoded_ns += image.width * image.height * pixel_ns
    else:
        decoded_ns = pixels * pixel_ns
    decoded_ns += len(tiles) * TILE_NS
    if checked.samples:
        decoded_ns += checked.samples.count * UNPACK_NS
    size = min(size, MAX_READS) if kind == "BMP" else size
    decoded_ns += size * BYTE_NS.get(kind, OTHER_BYTE_NS)
    profile = image.info.get("icc_profile")
    profile_s = TABLES_S if profile and TABLES in profile[:TAGS_END] else PROFILE_S
    fixed_s = IMAGE_S + (profile_s if profile else 0)
    return (fixed_s + decoded_ns / 1e9) * (2 if checked.coarse else 1)


class DearImage(Exception):
    """An image costs more than :data:`DEAR_S`: it must wait for its turn among such images."""


@dataclass(slots=True)
class Budget:
    """What the images of one request may cost to decode, and what they have cost."""

    size: int = 0  # in bytes, of the request's encoded images whose turn has come
    sent: float = inf  # bytes of the body, as they were sent; inf: there was none
    ratio: float = 1.0  # how many times larger the body is than it was sent
    spent_s: float = 0.0

    def left_s(self, request_s: float, max_pixels: int, spare: float = 1) -> float:
        """Return the CPU seconds that the next image may cost; for the arguments see below.

        ``spare``: by how much it may exceed what an image may cost by its header.
        """
        budget_s = min(request_s, FREE_S + BUDGET_S_PER_KB * min(self.size, self.sent) / 1000)
        image_s = max(FREE_S, max_pixels * IMAGE_NS_PER_PIXEL / 1e9)
        return max(0.0, min(image_s * spare, budget_s - self.spent_s))

    def check(self, images: int) -> None:
        """Raise TooCostly if the client has sent too few bytes for so many images."""
        if images > 1 and self.sent < (images - 1) * LEAST_SENT:
            raise TooCostly(
                f"The request has {images} images in {self.sent:.0f} bytes. For each image after"
                f" the first, at least {LEAST_SENT} bytes must be sent. Send fewer images at once."
            )

    def charge(self, request_s: float, max_pixels: int, seconds: float) -> None:
        """Spend the seconds that an image will cost.

        Raises:
            TooCostly: the image would cost more than an image of ``max_pixels`` may, or all images
                of the request more than ``request_s`` or their bytes allow. Nothing is spent.
        """
        left_s = self.left_s(request_s, max_pixels)
        if seconds > left_s:
            raise TooCostly(
                f"Decoding the image would take about {seconds:.3f} s of processor time; at most"
                f" {left_s:.3f} s are {'left' if self.spent_s else 'accepted'} here. Save it as a"
                " JPEG, make it smaller, or send fewer images at once."
            )
        self.spent_s += seconds
