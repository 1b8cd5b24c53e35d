"""What is particular to PNG: metadata is left out, and a transparent colour is scaled."""

import os
import re
import struct
import zlib

from PIL import Image

from predictor.errors import TooLarge
from predictor.images.limits import MAX_EXIF, Checked, LimitedFile, allow_reads

SIGNATURE = b"\x89PNG"
MAX_CHUNKS = 6_000  # pixels come in pieces of 8 kB or more, and with most encoders of 64 kB
CHUNK = struct.Struct(">I4s")  # length and kind; a checksum follows the content
KIND = re.compile(rb"\w{4}")  # at any other, as in a file that was filled up, Pillow stops
PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"IDAT"}
END = b"IEND"
# Texts that may say how the image is to be turned, and the most bytes of metadata that is read.
TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
EXIF_TEXT, XMP_TEXT = b"Raw profile type exif\0", b"XML:com.adobe.xmp\0"
NAMES = {b"iCCP", b"eXIf", EXIF_TEXT, XMP_TEXT}
MAX_METADATA = 1_000_000
MARK_BYTES = 5  # random, so that no file can have them in its last row on purpose


def check(data: bytes) -> Checked:
    """Leave metadata out, except a sound colour profile and the orientation, each once.

    Pillow would decompress all texts and profiles, and fail if one is large or broken.

    Raises:
        TooLarge: the PNG has more than ``MAX_CHUNKS`` chunks.
    """
    view, kept, begin, at = memoryview(data), [], 0, len(SIGNATURE) + 4
    seen: set[bytes] = set()  # only the first of each is tried, because that takes time
    for _ in range(MAX_CHUNKS):
        length, kind = CHUNK.unpack_from(data, at) if at + CHUNK.size < len(data) else (0, END)
        end = at + CHUNK.size + length + 4
        if kind == END or end > len(data) or not KIND.fullmatch(kind):
            break
        if kind not in PIXEL_CHUNKS:
            name = _name(kind, data, at + CHUNK.size)
            if name not in NAMES - seen or not _is_sound(view[at + 4 : end]):
                kept.append(view[begin:at])
                begin = end
            seen.add(name)
        at = end
    else:
        raise TooLarge(f"The PNG has more than {MAX_CHUNKS:,} chunks. Re-save it.")
    return Checked(b"".join([*kept, view[begin:]]) if kept else data)


def _name(kind: bytes, data: bytes, at: int) -> bytes:
    """Return the name of the metadata whose content begins at ``at``."""
    if kind not in TEXTS:
        return kind
    return next((name for name in (EXIF_TEXT, XMP_TEXT) if data.startswith(name, at)), b"")


def _is_sound(chunk: memoryview) -> bool:
    """Return whether Pillow can read this metadata: kind, name, content and checksum."""
    if len(chunk) > MAX_METADATA or zlib.crc32(chunk[:-4]) != int.from_bytes(chunk[-4:], "big"):
        return False
    kind = bytes(chunk[:4])
    _, _, content = bytes(chunk[4:-4]).partition(b"\0")
    if kind == b"iCCP":
        return _unpacks(content, MAX_METADATA)
    if kind == b"zTXt":
        return _unpacks(content, MAX_EXIF)
    return kind != b"iTXt" or content.startswith(b"\0")  # not compressed


def _unpacks(content: bytes, most: int) -> bool:
    """Return whether this is a method of compression, and data that has at most ``most`` bytes."""
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(content[1:], most)
    except zlib.error:
        return False
    return content.startswith(b"\0") and not unpacker.unconsumed_tail


def load(image: Image.Image, data: bytes) -> None:
    """Decode the pixels.

    Raises:
        ValueError: rows are missing, because the compressed data ends early. Pillow, which does not
            notice that, would leave them black.
    """
    mark = os.urandom(MARK_BYTES)
    if _is_marked_after_decoding(image, mark):  # or its last row happens to be like that
        with Image.open(LimitedFile(data)) as again:
            allow_reads(again)
            if _is_marked_after_decoding(again, bytes(byte ^ 255 for byte in mark)):
                raise ValueError("Rows of the PNG are missing.")


def _is_marked_after_decoding(image: Image.Image, mark: bytes) -> bool:
    """Return whether the row that is decoded last still has the bytes that it had before.

    Of an interlaced image of one row, that is its last column with an odd number.
    """
    left, top, right, bottom = 0, image.height - 1, image.width, image.height
    if image.info.get("interlace") and image.height > 1:
        top, bottom = image.height // 2 * 2 - 1, image.height // 2 * 2
    elif image.info.get("interlace") and image.width > 1:
        left, right = image.width // 2 * 2 - 1, image.width // 2 * 2
    row, pixels = Image.new(image.mode, (right - left, 1)), Image.new(image.mode, image.size, None)
    size = len(row.tobytes())
    row.frombytes((mark * size)[:size])
    pixels.paste(row, (left, top))
    image.im = pixels.im
    image.load()
    return image.crop((left, top, right, bottom)).tobytes() == row.tobytes()


def scale_transparent_colour(image: Image.Image, data: bytes) -> None:
    """Convert a PNG's transparent colour, in place, to 8 bits, as Pillow converts the pixels.

    In the file, ``data``, the colour has the file's bit depth. Other formats are not changed.
    """
    key, depth = image.info.get("transparency"), data[24] if data[12:16] == b"IHDR" else 8
    if image.mode == "RGB" and isinstance(key, tuple) and depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in key)
    if image.mode == "L" and isinstance(key, int) and depth < 8:
        greatest = (1 << depth) - 1
        image.info["transparency"] = (key & greatest) * 255 // greatest
