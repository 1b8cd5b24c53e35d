"""HEIC: the photos of iPhones, decoded by libheif from the optional package pillow-heif.

libheif itself refuses a frame that is larger than the file says, and decodes one frame of an item.
"""

import io
import struct
from collections import defaultdict

from PIL import ImageFile

from predictor.errors import TooLarge
from predictor.images.boxes import MAX_BOXES, PARENTS, boxes, hide_metadata, reader
from predictor.images.limits import Checked
from predictor.images.unread import recognise

SUFFIXES = {".heic", ".heif"}
MAX_REFERENCES = 5_000  # an iPhone's photo of 48 megapixels has 192 tiles, and as many in its maps
TILE_PIXELS = 20_000  # a smaller tile takes as long: 0.2 ms
TURNS = (b"irot", b"imir")  # a photo has each once
MAX_DEPTH = 4  # a turned copy of a grid of tiles has two
PIECE, AUXILIARY = b"dimg", b"auxl"  # references from a picture to its tiles; from alpha or a map


def is_heic(data: bytes) -> bool:
    """Return whether the data begins like a HEIC or HEIF file with HEVC pictures."""
    found = recognise(data) if data[4:8] == b"ftyp" else None
    return found is not None and found[0] == "HEIC"


def can_read_heic() -> bool:
    """Return whether pillow-heif is installed."""
    try:
        import pillow_heif  # noqa: F401
    except ImportError:
        return False
    return True


def open_heic(data: bytes) -> ImageFile.ImageFile:
    """Read the header of a HEIC and return its primary image, not yet decoded.

    libheif turns the image, so the orientation in its EXIF does not count.
    """
    from pillow_heif import HeifImageFile, options

    # One processor for each image, as with AVIF; and nothing but the image.
    options.DECODE_THREADS = 1
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    image: ImageFile.ImageFile = HeifImageFile(io.BytesIO(data))  # type: ignore[no-untyped-call]
    if not image.info.get("primary"):  # a thumbnail is not; another picture was not counted
        raise ValueError("The primary image of the HEIC is not one of its pictures.")
    return image


def check(data: bytes) -> Checked:
    """Return the file without metadata, and half of the pixels that are decoded for its image.

    The other half may be its alpha. A tile counts as often as it is used: a grid may use a large
    one, of which it shows a corner, hundreds of times.

    Raises:
        TooLarge: the file has too many boxes or references, or pictures of pictures of pictures.
    """
    data = hide_metadata(data)
    items = _Items(data)
    return Checked(data, pixels=items.pixels(items.primary) // 2)


class _Items:
    """The pictures in a HEIC: which one is shown, their sizes, and what they consist of."""

    def __init__(self, data: bytes) -> None:
        self.primary = 0
        self._maps: dict[int, list[int]] = defaultdict(list)  # alpha or others, by their picture
        self._pieces: dict[int, list[int]] = defaultdict(list)
        self._properties: dict[int, list[int]] = defaultdict(list)  # their numbers, by item
        self._sizes: list[int] = []  # pixels, by number of property; 0 if it is not a size
        self._turns: list[bool] = []  # by number of property
        self._counted: dict[int, int] = {}
        self._left = MAX_REFERENCES
        self._id = "H"  # the format of an item's number in a reference
        end_of_properties = 0
        found: set[bytes] = set()
        for kind, begin, end in boxes(data):
            content = memoryview(data)[begin:end]
            if (kind in (b"ipco", b"pitm") and kind in found) or (
                kind in PARENTS and begin < end_of_properties
            ):
                raise TooLarge("The HEIC has several lists of its pictures. Re-save it.")
            if kind == b"moov":  # libheif makes an object for each frame: 1.5 kB took 1.1 GB
                raise TooLarge("The HEIC has a video. Send one of its pictures.")
            found.add(kind)
            if begin < end_of_properties:
                self._sizes.append(_size(content) if kind == b"ispe" else 0)
                self._turns.append(kind in TURNS)
            elif kind == b"ipco":
                end_of_properties = end
            elif kind == b"pitm":
                self.primary = int.from_bytes(content[4 : 8 if content[0] else 6], "big")
            elif kind == b"ipma":
                self._associate(content)
            elif kind == b"iref":
                self._id = "I" if content[0] else "H"
            elif kind in (PIECE, AUXILIARY):
                self._refer(kind, content)
        self._largest = max(self._sizes, default=0)

    def pixels(self, item: int, depth: int = 0) -> int:
        """Return the pixels of an item with its alpha or, as often as it uses them, of its pieces.

        An item without a size counts as large as the largest.
        """
        if depth > MAX_DEPTH:
            raise TooLarge("The HEIC has pictures of pictures of pictures. Re-save it.")
        if item not in self._counted:
            own = [n - 1 for n in self._properties[item] if 0 < n <= len(self._sizes)]
            if sum(self._turns[n] for n in own) > len(TURNS):  # each takes 7 ns a pixel
                raise TooLarge("The HEIC turns a picture many times. Re-save it.")
            size = max((self._sizes[n] for n in own), default=0) or self._largest
            pieces = sum(
                max(self.pixels(piece, depth + 1), TILE_PIXELS) for piece in self._pieces[item]
            )
            maps = sum(self.pixels(other, depth + 1) for other in self._maps[item])
            self._counted[item] = max(size, pieces) + maps
        return self._counted[item]

    def _associate(self, content: memoryview) -> None:
        """Read which properties the items have."""
        number = reader(content)
        version, wide = number(1), number(3) & 1
        for _ in range(min(number(4), MAX_BOXES, len(content))):
            properties = self._properties[number(4 if version else 2)]
            for _ in range(number(1)):  # the first bit says whether the property is essential
                properties.append(number(1 + wide) & (0x7FFF if wide else 0x7F))

    def _refer(self, kind: bytes, content: memoryview) -> None:
        """Read the references from one item to others."""
        form = struct.Struct(f">{self._id}H")
        item, count = form.unpack_from(content)
        self._left -= count
        if self._left < 0:
            raise TooLarge("The HEIC has too many tiles. Re-save it.")
        others = struct.unpack_from(f">{count}{self._id}", content, form.size)
        for other in others:
            if kind == PIECE:
                self._pieces[item].append(other)
            else:
                self._maps[other].append(item)


def _size(content: memoryview) -> int:
    width, height = struct.unpack_from(">II", content, 4)
    return int(width * height)
