"""What is particular to JPEG: segments, scans, and files without their end marker."""

import re
from collections import Counter

from PIL import Image, ImageChops, JpegImagePlugin

from predictor.errors import DamagedImage, TooLarge
from predictor.images.limits import MAX_EXIF, Checked, LimitedFile, search

SIGNATURE = b"\xff\xd8\xff"
# Of one kind. libjpeg writes progressive JPEGs with 10 scans. Extended XMP and depth maps take many
# APP segments.
MAX_SEGMENTS, MAX_APP_SEGMENTS = 100, 500
MAX_ALL_SEGMENTS = 1000  # of 64 kB, 20 MB have 320
MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")  # of a segment, or the end
FIRST_SEGMENT = 0xC0  # no length follows a smaller, reserved marker
START_OF_IMAGE, END_OF_IMAGE = b"\xff\xd8", b"\xff\xd9"
START_OF_SCAN, APP1, EXIF = 0xDA, 0xE1, b"Exif\0\0"
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
SEQUENTIAL_FRAMES, LOSSLESS_FRAME = {0xC0, 0xC1}, 0xC3
ARITHMETIC_CODING, ARITHMETIC_COST = 0xC9, 4  # its first frame; a scan takes as long as 3 others
ALL_COEFFICIENTS = (1 << 64) - 1
STEP = 256  # rows that are compared while all other threads wait
BUSY = 16  # between two neighbouring values: a difference that a further scan changes


def check(data: bytes) -> Checked:
    """Refuse a JPEG with too many scans or segments of one kind, and mend a missing end.

    Each scan may update all pixels, and Pillow needs quadratic time to join EXIF segments. Data
    after the end of the image, such as the video in a phone's photo, is not counted.
    """
    parts = _Parts()
    while (found := search(MARKER, data, parts.end)) and found[0] != END_OF_IMAGE:
        kind, begin = found[1][0], found.end()
        content = _content(data, begin) if kind >= FIRST_SEGMENT else b""
        if parts.complete and not (kind == START_OF_SCAN and _is_scan(content)):
            break
        parts.add(kind, content)
        parts.end = begin + 2 + len(content) if kind >= FIRST_SEGMENT else begin
    if found and not parts.begun:  # Pillow would read on
        raise DamagedImage("The JPEG ends before its first scan.")
    scans, is_lossless = parts.kinds[START_OF_SCAN] * parts.cost, parts.kinds[LOSSLESS_FRAME] > 0
    checked = Checked(data, scans, streamed=parts.streamed, lossless=is_lossless)
    if (found and found[0] == END_OF_IMAGE) or not parts.complete:
        return checked
    # Samsung's panoramas have a video in place of the end marker.
    end = found.start() if found else len(data)
    if (other := data.find(START_OF_IMAGE, parts.end, end)) >= 0:
        end = other
    if parts.streamed:
        mended = data[:end].rstrip(b"\xff") + _padding(parts, end)
        return checked._replace(data=mended)
    coarse = data[: parts.end] + END_OF_IMAGE
    return checked._replace(data=data[:end] + END_OF_IMAGE, coarse=coarse)


def _content(data: bytes, at: int) -> bytes:
    """Return the content of the segment whose length is at ``at``."""
    return data[at + 2 : at + max(2, int.from_bytes(data[at : at + 2], "big"))]


def _is_scan(content: bytes) -> bool:
    """Return whether this can be the header of a scan. In a video, anything may follow a marker."""
    return content[:1] in (b"\1", b"\2", b"\3", b"\4") and len(content) == 4 + 2 * content[0]


class _Parts:
    """What the segments of a JPEG say, up to one of them.

    Attributes:
        end: where the last segment ends in the file.
        kinds: how many segments there are of each kind.
        streamed: whether the decoder needs no memory for all coefficients.
        cost: of a scan, beside one in Huffman coding.
    """

    def __init__(self) -> None:
        self.end, self.exif, self.kinds = 2, 0, Counter[int]()
        self.streamed, self.cost = False, 1
        self.missing: dict[int, int] = {}  # a bit for each coefficient of a component
        self.frame, self.begun = b"", False

    @property
    def complete(self) -> bool:
        """Whether the scans have all coefficients, if the last one does not end too early."""
        return self.begun and not self.missing

    def add(self, kind: int, content: bytes) -> None:
        """Add a segment; raise TooLarge if there are too many of its kind."""
        self.kinds[kind] += 1
        most = MAX_APP_SEGMENTS if 0xE0 <= kind <= 0xEF else MAX_SEGMENTS
        if self.kinds[kind] > most or self.kinds.total() > MAX_ALL_SEGMENTS:
            raise TooLarge(
                f"The JPEG has more than {most} scans or segments of one kind, or more than"
                f" {MAX_ALL_SEGMENTS:,} of all kinds. Re-save it."
            )
        self.exif += len(content) + 2 if kind == APP1 and content.startswith(EXIF) else 0
        if self.exif > MAX_EXIF:
            raise TooLarge(f"The JPEG has more than {MAX_EXIF:,} bytes of EXIF. Re-save it.")
        if kind in FRAMES:
            if self.frame:  # Pillow makes an object for every three bytes of a frame's header
                raise TooLarge("The JPEG has several frames. Re-save it.")
            self.frame, self.streamed = content, kind in SEQUENTIAL_FRAMES
            self.cost = ARITHMETIC_COST if kind >= ARITHMETIC_CODING else 1
            self.missing = dict.fromkeys(content[6::3], ALL_COEFFICIENTS)
        elif kind == START_OF_SCAN and _is_scan(content):
            self._add_scan(content)

    def _add_scan(self, content: bytes) -> None:
        components, (first, last, bits) = content[1:-3:2], content[-3:]
        self.streamed &= self.begun or content[:1] == self.frame[5:6]
        self.begun = True
        if bits & 15 or last > 63:  # a later scan has the low bits
            return
        for component in self.missing.keys() & set(components):
            self.missing[component] &= ~((2 << last) - (1 << first))
            if not self.missing[component]:
                del self.missing[component]


def _padding(parts: _Parts, end: int) -> bytes:
    """Return zeros, which let the decoder read ahead and fill in blocks whose bytes were lost.

    They suffice for about a 20th of a small image, and about a row of blocks of a large one, as
    zeros give half as many blocks as usual data. Where more is missing, the decoder fails.
    """
    rows = int.from_bytes(parts.frame[1:3], "big") // 16
    return bytes(max(128, (end - parts.end) // max(20, rows // 2)))


def open_image(data: bytes) -> Image.Image:
    """Read the header. Pillow's own limit for pixels does not apply here.

    Of several images in a file, as 3D cameras write them, only the first is looked at.
    """
    return JpegImagePlugin.JpegImageFile(LimitedFile(data))


def samples_per_pixel(image: Image.Image) -> float:
    """Return how many samples an opened JPEG has in all components, for each pixel."""
    layers: list[tuple[int, int, int, int]] = image.layer  # type: ignore[attr-defined]
    most = max(across for _, across, _, _ in layers) * max(down for _, _, down, _ in layers)
    return sum(across * down for _, across, down, _ in layers) / max(1, most)


def check_last_scan(image: Image.Image, coarse: bytes, enough: int | None) -> None:
    """Raise DamagedImage if the last scan of a decoded JPEG ends before the last row.

    The decoder does not tell. ``coarse`` is the same file with nothing in that scan, which changes
    pixels wherever the image is not flat.
    """
    changed = busy = 0  # numbers of the last such rows, from 1
    with open_image(coarse) as other:
        if enough is not None:
            other.draft(None, (enough, enough))
        for top in range(0, image.height, STEP):
            part, coarser = (one.crop((0, top, one.width, top + STEP)) for one in (image, other))
            neighbours = ImageChops.difference(part, part.crop((1, 0, *part.size)))
            changed = _last_row(ImageChops.difference(part, coarser), top) or changed
            busy = _last_row(neighbours.point(lambda step: step > BUSY), top) or busy
    if 0 < changed < busy - 8:
        raise DamagedImage("The JPEG is truncated: the last rows of its last scan are missing.")


def _last_row(part: Image.Image, top: int) -> int:
    """Return the number of the last row that is not black, from 1; 0 if there is none."""
    box = part.getbbox()
    return top + box[3] if box else 0
