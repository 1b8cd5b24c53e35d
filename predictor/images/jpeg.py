"""What is particular to JPEG: segments and scans are counted before Pillow reads the file."""

import re
from collections import Counter

from predictor.errors import TooLarge
from predictor.images.limits import MAX_EXIF, Checked, search

SIGNATURE = b"\xff\xd8\xff"
# Of one kind. libjpeg writes progressive JPEGs with 10 scans. Extended XMP and depth maps take many
# APP segments.
MAX_SEGMENTS, MAX_APP_SEGMENTS = 100, 500
MAX_FRAMES = 1  # Pillow makes an object for every three bytes of a frame's header
SEGMENT_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd8\xff])")  # a length follows
FRAME_HEADERS = b"\xc0\xc1\xc2\xc3\xc5\xc6\xc7\xc9\xca\xcb\xcd\xce\xcf"
START_OF_SCAN, END_OF_IMAGE, APP1 = b"\xda", b"\xd9", b"\xe1"


def check(data: bytes) -> Checked:
    """Refuse a JPEG with too many scans or segments of one kind.

    Each scan may update all pixels, and Pillow needs quadratic time to join EXIF segments. Data
    after the end of the image, such as the video in a phone's photo, is not counted.
    """
    kinds: Counter[bytes] = Counter()
    offset, exif, frames = 2, 0, 0
    while (found := search(SEGMENT_MARKER, data, offset)) and found[1] != END_OF_IMAGE:
        kinds[found[1]] += 1
        most = MAX_APP_SEGMENTS if b"\xe0" <= found[1] <= b"\xef" else MAX_SEGMENTS
        if kinds[found[1]] > most:
            raise TooLarge(
                f"The JPEG has more than {most} scans or segments of one kind. Re-save it."
            )
        if (frames := frames + (found[1] in FRAME_HEADERS)) > MAX_FRAMES:
            raise TooLarge("The JPEG has several frames. Re-save it.")
        length = max(2, int.from_bytes(data[found.end() : found.end() + 2], "big"))
        if found[1] == APP1 and data.startswith(b"Exif\0\0", found.end() + 2):
            exif += length
        if exif > MAX_EXIF:
            raise TooLarge(f"The JPEG has more than {MAX_EXIF:,} bytes of EXIF. Re-save it.")
        offset = found.end() + length
    return Checked(data, scans=kinds[START_OF_SCAN])
