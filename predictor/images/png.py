"""What is particular to PNG: compressed metadata is counted, and a transparent colour is scaled."""

from PIL import Image

from predictor.errors import TooLarge
from predictor.images.limits import Checked

SIGNATURE = b"\x89PNG"
MAX_COMPRESSED = 100  # chunks with a profile or text, of up to 1 MB each


def check(data: bytes) -> Checked:
    """Refuse a PNG with many colour profiles or texts, each of which Pillow would decompress."""
    if sum(map(data.count, (b"iCCP", b"zTXt", b"iTXt"))) > MAX_COMPRESSED:
        raise TooLarge(f"The PNG has more than {MAX_COMPRESSED} texts or profiles. Re-save it.")
    return Checked(data)


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
