"""Images in base64, in the wrappings in which clients send them."""

import base64
import io
import re
from collections.abc import Callable

from predictor.errors import BadRequest, RequestError
from predictor.images.decoding import begins_like_an_image
from predictor.web.forms import STEP, unquote

URL_SAFE = bytes.maketrans(b"-_", b"+/")
BLANKS = b" \t\r\n\v\f"
PREFIX = re.compile(rb"(?i)data:[^,]{0,1000},|[\w/+.;-]{0,50}base64,")  # of a data URL, or its rest
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Characters that tell what a text is: a data URL can begin with a file name.
BEGINNING = 1024
SIGNATURE = 32  # characters of base64 that have an image's first 24 bytes
MAX_PADDING = 4  # characters; to strip 26 MB of them would stop all other threads for 0.1 s
LEAST = 20  # characters of the smallest image, a PPM


def from_base64(text: object) -> bytes | RequestError:
    """Decode base64: plain or URL-safe, with or without padding, in a data URL, or in quotes.

    The error is returned, not raised, because the other images of the request may be valid.
    """
    if not isinstance(text, str | bytes):
        return BadRequest("The image is not a string; it must be base64.")
    try:
        return _decode(_unwrap(text))
    except ValueError:
        return BadRequest(
            "The image is text, but not base64. File names and URLs are not followed: send the"
            " photo itself (with curl, put an @ before the file name: -F file=@photo.jpg)."
        )


def holds_an_image(text: object) -> bool:
    """Return whether a text is an image in base64. Only its beginning is decoded."""
    if not isinstance(text, str | bytes) or len(text) < LEAST:
        return False
    try:
        return begins_like_an_image(_decode(_unwrap(text[:BEGINNING])[:SIGNATURE]))
    except ValueError:
        return False


def _unwrap(text: str | bytes) -> bytes:
    """Return the base64 in a text, without blanks and padding, in the standard alphabet."""
    data = text.removeprefix("\ufeff").encode("ascii") if isinstance(text, str) else text
    data = data.removeprefix(BYTE_ORDER_MARK).lstrip()
    if data[:2] in (b"b'", b'b"'):  # as Python prints bytes
        data = data[1:]
    if data[:1] in (b"'", b'"'):
        data = data[1:].rstrip().removesuffix(data[:1])
    if prefix := PREFIX.match(data):
        data = unquote(data[prefix.end() :])
    data = _in_steps(lambda part: part.translate(URL_SAFE, BLANKS), data)
    for _ in range(MAX_PADDING):
        data = data.removesuffix(b"=")
    return data


def _decode(data: bytes) -> bytes:
    padded = data + b"=" * (-len(data) % 4)  # and STEP is a multiple of 4
    return _in_steps(lambda part: base64.b64decode(part, validate=True), padded)


def _in_steps(convert: Callable[[bytes], bytes], data: bytes) -> bytes:
    """Convert the data in steps, between which other threads run: 20 MB would stop them 0.1 s."""
    converted = io.BytesIO()
    for step in range(0, len(data), STEP):
        converted.write(convert(data[step : step + STEP]))
    return converted.getvalue()
