"""Forms → parts, in the memory of the form. Nothing is written to a disk.

A parser of our own, because no library holds all limits. For 20 MB of headers werkzeug's
``MultipartDecoder`` takes up to 560 MB and 13 s. ``multipart`` and ``python-multipart`` have
limits, but need twice the memory of the form and refuse bare line feeds.
"""

import re
from binascii import a2b_qp
from typing import NamedTuple

from werkzeug.http import parse_options_header

from predictor.errors import BadRequest, TooLarge

# Of a form, besides its images. With 1,000, as in other servers, 60 clients with forms of 3 kB at
# once made /healthz wait for 0.3 s.
MAX_OTHERS = 100
STEP = 1_000_000  # bytes that are searched or decoded while all other threads wait
MAX_HEAD = 8192  # bytes of a field's headers in a multipart form
# Bytes of all fields' headers, for each field that is allowed. Werkzeug parses 1 MB in 0.2 s.
MAX_MEAN_HEAD = 300
MAX_FALSE = 100  # lines in a field that begin with the boundary, but continue
# curl -d, which sends any file as a urlencoded form, is a usual mistake.
TOO_MANY = (
    "The form has more than {:,} fields. Send one for each photo, as a file (with curl:"
    " -F file=@photo.jpg)."
)
BOUNDARY = re.compile(r'(?i);\s*boundary\s*=\s*(?:"([^"]*)"|([^;]*))')
# A form's first line, and what may follow the boundary in a line: group 1 ends the form. With
# blanks in two repetitions, or without a limit, a hostile line would take quadratic time.
FIRST_LINE = re.compile(rb"(?i)(?:\A[\r\n]{0,4}|\n)--([^\r\n]{1,300}+)\r?\n(?=[a-z-]+:)")
REST_OF_LINE = re.compile(rb"(--|[ \t\r\n]{0,100}\Z)|[ \t]{0,100}\r?\n")
BLANK_LINE = re.compile(rb"\r?\n\r?\n")
HEADER = re.compile(r"(?im)^content-(disposition|type)[ \t]*:(.*)")


class Part(NamedTuple):
    """One field of a form."""

    name: str
    filename: str | None  # None: the client did not call it a file
    value: bytes
    kind: str = ""  # its Content-Type, in lower case and without parameters


def urlencoded_parts(body: bytes, max_images: int = 1) -> list[Part]:
    """Return the fields of a urlencoded form. A ``+`` stays, because it belongs to base64.

    Raises TooLarge if there are more than ``max_images`` and :data:`MAX_OTHERS` together.
    """
    if body.count(b"&") >= (most := max_images + MAX_OTHERS):
        raise TooLarge(TOO_MANY.format(most))
    pairs = (field.partition(b"=")[::2] for field in body.split(b"&"))
    return [
        Part(unquote(name[:MAX_HEAD]).decode(errors="replace"), None, unquote(value))
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


def begins_like_a_form(body: bytes) -> bool:
    """Return whether the body begins like a multipart form, whatever its Content-Type."""
    return FIRST_LINE.match(body, 0, MAX_HEAD) is not None


def multipart_parts(body: bytes, content_type: str, max_images: int = 1) -> list[Part]:
    """Return the parts of a multipart form; none if no boundary is found.

    If ``content_type`` has no boundary, or another one than the form, the form's first line tells
    it. Lines may end with CRLF or LF.

    Raises:
        BadRequest: the form ends in a field's headers, or there are too many bytes of headers.
        TooLarge: there are more than ``max_images`` and :data:`MAX_OTHERS` together.
    """
    if not (boundary := _boundary(body, content_type)):
        return []
    delimiter, parts, most = b"\n--" + boundary, list[Part](), max_images + MAX_OTHERS
    heads_left = max_heads = most * MAX_MEAN_HEAD
    begin = _find(body, delimiter[1:], 0) + len(delimiter) - 1
    for _ in range(most + 1):
        line = REST_OF_LINE.match(body, begin)
        if line and line[1] is not None:
            return parts
        head = BLANK_LINE.search(body, begin, begin + min(MAX_HEAD, heads_left))
        end = _next_delimiter(body, delimiter, head.end() - 1) if head else -1
        if head is None:
            raise BadRequest(
                f"The form ends too early, or has more than {MAX_HEAD:,} bytes of headers in one"
                f" field or {max_heads:,} in all. Shorten the names of files, or send fewer fields."
            )
        if end < 0:  # some clients forget the last line, or the line break before it
            return [*parts, _part(body[begin : head.start()], body[head.end() :])]
        heads_left -= head.start() - begin
        value_end = end - 1 if line and b"\r" in line[0] and body[end - 1] == 13 else end
        parts.append(_part(body[begin : head.start()], body[head.end() : value_end]))
        begin = end + len(delimiter)
    raise TooLarge(TOO_MANY.format(most))


def _boundary(body: bytes, content_type: str) -> bytes:
    """Return the boundary of a form; empty if there is none."""
    found = BOUNDARY.search(content_type)
    given = (found[1] or found[2] or "").strip().encode(errors="replace") if found else b""
    begin = _find(body, b"--" + given, 0) if given else -1
    if begin >= 0 and REST_OF_LINE.match(body, begin + 2 + len(given)):
        return given
    first = FIRST_LINE.search(body, 0, MAX_HEAD)
    return first[1].rstrip() if first else b""


def _find(body: bytes, text: bytes, begin: int) -> int:
    """Return ``body.find(text, begin)``, searched in steps, between which other threads run."""
    for step in range(begin, len(body), STEP):
        if (found := body.find(text, step, step + STEP + len(text))) >= 0:
            return found
    return -1


def _next_delimiter(body: bytes, delimiter: bytes, begin: int) -> int:
    for _ in range(MAX_FALSE):
        begin = _find(body, delimiter, begin)
        if begin < 0 or REST_OF_LINE.match(body, begin + len(delimiter)):
            return begin
        begin += 1
    return -1


def _part(head: bytes, value: bytes) -> Part:
    unfolded = re.sub(r"\r?\n[ \t]+", " ", head.decode(errors="replace"))
    headers = {name.lower(): text.strip() for name, text in HEADER.findall(unfolded)}
    _, options = parse_options_header(headers.get("disposition", ""))
    kind = headers.get("type", "").partition(";")[0].strip().lower()
    return Part(options.get("name", ""), options.get("filename"), value, kind)
