"""Multipart forms as many clients write them, and a comparison with another parser."""

from __future__ import annotations

import random
from io import BytesIO

from werkzeug.formparser import MultiPartParser

from predictor.web.forms import Part, multipart_parts

BOUNDARIES = ("b", "----WebKitFormBoundary7MA4YWxkTrZu0gW", "----=_Part_1_2.3", "===17===", "a b",
              "--------------------------d74496d66958873e", "(a)+_,./:?'")  # fmt: skip
NAMES = (
    "file", "file", "image", "images", "file[]", "file[0]", "photo", "top_k", "dzuuid", "", "ä",
)  # fmt: skip
FILENAMES = (
    '; filename="p.jpg"', "; filename=p.jpg", '; filename=""', '; filename="a \\"b\\".jpg"', "",
    "; filename=\"x\"; filename*=utf-8''%C3%A4.jpg", '; filename="ä;b.jpg"',
)  # fmt: skip
KINDS = (
    "", "Content-Type: image/jpeg", "Content-Type: application/octet-stream", "X: y\n z",
    "content-type: text/plain; charset=utf-8", "Content-Transfer-Encoding: binary",
)  # fmt: skip
TEXTS = (b"", b"{}", b"5", b"null", b"\r\n\n", b"-", b"--", b"\ra", b"a\nb", b"\xff\xfe", b"b--")


def form(rng: random.Random, image: bytes) -> tuple[bytes, str]:
    """Return a valid form of one to four parts and its Content-Type. Some parts are the image."""
    boundary, newline = rng.choice(BOUNDARIES), rng.choice(("\r\n", "\r\n", "\n"))
    lines = [rng.choice(("", "", "", "A preamble" + newline)).encode()]
    for _ in range(rng.choice((1, 1, 2, 4))):
        disposition = f'Content-Disposition: form-data; name="{rng.choice(NAMES)}"'
        heads = [disposition + rng.choice(FILENAMES), *filter(None, [rng.choice(KINDS)])]
        rng.shuffle(heads)
        head = "\n".join([f"--{boundary}", *heads, "", ""]).replace("\n", newline)
        lines += [head.encode(), rng.choice((image, image, *TEXTS)), newline.encode()]
    lines.append(f"--{boundary}--".encode() + rng.choice((b"", newline.encode(), b"\r\nbye")))
    return b"".join(lines), f'multipart/form-data; boundary="{boundary}"'


def disagreement(rng: random.Random, image: bytes) -> str | None:
    """Return how our parser and werkzeug's differ about a valid form; None if they agree.

    Werkzeug's gets the boundary itself. Ours finds it in the header, and without that in the form.
    """
    # A line's end before a boundary may belong to the value or not; werkzeug chooses otherwise.
    body, kind = form(rng, image + b".")
    boundary = kind.partition('"')[2].rstrip('"').encode()
    parser = MultiPartParser(stream_factory=lambda **_: BytesIO())
    texts, files = parser.parse(BytesIO(body), boundary, len(body))
    expected = [(name, text) for name, text in texts.items(multi=True)]
    expected += [
        (f"{name}/{file.filename}", file.stream.read()) for name, file in files.items(multi=True)
    ]
    for content_type in (kind, "multipart/form-data"):
        found = sorted(map(_named, multipart_parts(body, content_type)), key=repr)
        if found != sorted(expected, key=repr):
            return f"parsed as {found} and not as {expected}"
    return None


def _named(part: Part) -> tuple[str, object]:
    if part.filename is None:
        return part.name, part.value.decode(errors="replace")
    return f"{part.name}/{part.filename}", part.value
