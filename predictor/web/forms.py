"""Forms → fields, in a few times the memory of the form. Nothing is written to a disk.

Werkzeug's parsers need up to 1.5 GB for 20 MB of tiny fields, headers or percent escapes.
"""

import re
from binascii import a2b_qp
from typing import NamedTuple

from werkzeug.http import parse_options_header

from predictor.errors import BadRequest, TooLarge

MAX_FIELDS = 1000
STEP = 1_000_000  # bytes that are decoded while all other threads wait
MAX_HEAD = 8192  # bytes of a field's headers in a multipart form
MAX_HEADS = 200_000  # bytes of all fields' headers: werkzeug takes about 150 ms to parse them
TOO_MANY = f"The form has more than {MAX_FIELDS:,} fields. Send one for each photo."


class Field(NamedTuple):
    """One field of a form."""

    name: str
    filename: str | None  # None: the field is text, not a file
    value: bytes


def urlencoded_fields(body: bytes) -> list[Field]:
    """Return the fields of a urlencoded form. A ``+`` stays, because it belongs to base64.

    Raises TooLarge if there are more than ``MAX_FIELDS``.
    """
    if body.count(b"&") >= MAX_FIELDS:
        raise TooLarge(TOO_MANY)
    pairs = (field.partition(b"=")[::2] for field in body.split(b"&"))
    return [
        Field(unquote(name[:MAX_HEAD]).decode(errors="replace"), None, unquote(value))
        for name, value in pairs
    ]


def unquote(text: bytes) -> bytes:
    """Decode percent escapes, as quoted-printable: urllib makes objects for each escape."""
    if b"%" not in text:
        return text
    pieces, begin = list[bytes](), 0
    while begin < len(text):  # in steps, between which other threads run
        end = begin + STEP
        if (escape := text.find(b"%", end - 2, end)) >= 0:
            end = escape
        pieces.append(a2b_qp(text[begin:end].replace(b"=", b"%3D").replace(b"%", b"=")))
        begin = end
    return b"".join(pieces)


def multipart_fields(body: bytes, boundary: str) -> list[Field]:
    """Return the fields of a multipart form; none if the boundary is empty or not in the form.

    Raises:
        BadRequest: the form is truncated, or there are too many bytes of headers.
        TooLarge: there are more than ``MAX_FIELDS``.
    """
    delimiter, fields = b"--" + boundary.encode(errors="replace"), list[Field]()
    begin, heads_left = body.find(delimiter) if boundary else -1, MAX_HEADS
    if begin < 0:
        return fields
    line_end = body.find(b"\n", begin)
    newline = b"\r\n" if body[line_end - 1 : line_end] == b"\r" else b"\n"
    for _ in range(MAX_FIELDS + 1):
        begin += len(delimiter)
        if body.startswith(b"--", begin):
            return fields
        head_end = body.find(newline * 2, begin, begin + min(MAX_HEAD, heads_left))
        end = body.find(newline + delimiter, head_end + len(newline))
        if head_end < 0 or end < 0:
            raise BadRequest(
                f"The form ends too early, or has more than {MAX_HEAD:,} bytes of headers in one"
                f" field or {MAX_HEADS:,} in all. Send fewer fields with shorter names."
            )
        heads_left -= head_end - begin
        value = body[head_end + 2 * len(newline) : end]
        fields.append(_field(body[begin:head_end].decode(errors="replace"), value))
        begin = end + len(newline)
    raise TooLarge(TOO_MANY)


def _field(head: str, value: bytes) -> Field:
    unfolded = re.sub(r"\r?\n[ \t]+", " ", head)
    found = re.search("(?im)^content-disposition:(.*)", unfolded)
    _, options = parse_options_header(found[1].strip() if found else "")
    return Field(options.get("name", ""), options.get("filename"), value)
