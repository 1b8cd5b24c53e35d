import random
import tracemalloc
from contextlib import suppress
from io import BytesIO
from time import thread_time
from urllib.parse import parse_qsl, urlencode

import pytest
from werkzeug.formparser import MultiPartParser
from werkzeug.test import EnvironBuilder

from predictor.errors import BadRequest, TooLarge
from predictor.web.forms import (
    MAX_OTHERS,
    Part,
    _find,
    begins_like_a_form,
    multipart_parts,
    unquote,
    urlencoded_parts,
)

FILE = b'Content-Disposition: form-data; name="file"; filename="a.png"'
TEXT = b'Content-Disposition: form-data; name="text"'
END = b"--b--\r\n"
TYPE = "multipart/form-data; boundary=b"


def part(head, value=b""):
    return b"--b\r\n" + head + b"\r\n\r\n" + value + b"\r\n"


def by_werkzeug(body):
    """Parse a form with werkzeug: its files, then its texts."""
    parser = MultiPartParser(stream_factory=lambda **_: BytesIO())
    texts, files = parser.parse(BytesIO(body), b"b", len(body))
    pairs = [(name, file) for name in files for file in files.getlist(name)]
    fields = [Part(name, file.filename, file.stream.read(), file.mimetype) for name, file in pairs]
    return fields + [Part(n, None, t.encode()) for n in texts for t in texts.getlist(n)]


FORMS = {
    "a file": part(FILE, b"\x89PNG\r\n\x1a\n\0\xff") + END,
    "a text": part(TEXT, b"abc+/=") + END,
    "an empty file": part(FILE) + END,
    "no file chosen": part(FILE.replace(b"a.png", b"")) + END,
    "several": part(FILE, b"1") + part(FILE, b"2") + part(TEXT, b"3") + END,
    "none": END,
    "further headers": part(b"Content-Type: a/b\r\n" + FILE + b"\r\nX: y", b"1") + END,
    "folded": part(FILE.replace(b"; filename", b";\r\n filename"), b"1") + END,
    "lower case": part(FILE.lower(), b"1") + END,
    "quoted": part(rb'Content-Disposition: form-data; name=file; filename="a \"b\".png"') + END,
    "umlaut": part(FILE.replace(b"a.png", "ä€.png".encode()), b"1") + END,
    "extended": part(FILE + b"; filename*=utf-8''%C3%A4.png", b"1") + END,
    "line feeds": (part(FILE, b"1") + part(TEXT, b"2") + END).replace(b"\r\n", b"\n"),
    "preamble": b"To whom it may concern\r\n" + part(FILE, b"1") + END,
    "epilogue": part(FILE, b"1") + END + b"bye",
    "delimiter inside": part(FILE, b"x--b--b\n--bb\r\r\n-- b") + END,
    "only newlines": part(FILE, b"\r\n\r\n\n\r") + END,
    "no last newline": part(FILE, b"1") + END.rstrip(),
}


@pytest.mark.parametrize("case", FORMS)
def test_multipart_parts_agree_with_werkzeug(case):
    assert multipart_parts(FORMS[case], TYPE) == by_werkzeug(FORMS[case])


def test_every_value_without_the_delimiter_is_read_as_sent():
    rng, pieces = random.Random(0), [b"\r", b"\n", b"-", b"--b", b"b", b"x", b"\r\n"]
    made = [b"".join(rng.choices(pieces, k=9)) for _ in range(2000)]
    values = [value for value in made if b"\n--b" not in b"\n" + value]
    assert len(values) > 1000
    body = b"".join(part(FILE, value) for value in values) + END
    assert [field.value for field in multipart_parts(body, TYPE, len(values))] == values


def test_forms_of_werkzeugs_client_are_parsed():
    builder = EnvironBuilder(data={"a": "1", "ä": "ö", "file": (BytesIO(b"2"), "ü.png")})
    request = builder.get_request()
    fields = multipart_parts(request.get_data(), request.content_type)
    assert [part[:3] for part in fields] == [
        ("a", None, b"1"), ("ä", None, "ö".encode()), ("file", "ü.png", b"2"),
    ]  # fmt: skip


STRANGE = {
    "===17===": "boundary====17===",
    "----=_Part_1_2.3": "boundary=----=_Part_1_2.3",
    "a;b": 'boundary="a;b"',
    "a;c": "boundary=a;c",
    "a b": "boundary=a b",
    "a  c": 'charset=utf-8; Boundary = "a  c"; x=y',
    "(a)+_,./:?": "boundary=(a)+_,./:?",
    "----WebKitFormBoundaryX": "",
    "none": "boundary=",
    "other": "boundary=another",
    "longer": "boundary=long",
    "dashes": "boundary=--dashes",
    "é": "boundary=\xc3\xa9",
    "in quotes": "boundary='in quotes'",
}


@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
@pytest.mark.parametrize("boundary", STRANGE)
def test_boundary_is_taken_from_the_header_or_the_first_line(boundary, newline):
    line = b"--" + boundary.encode()
    body = newline.join([line, FILE, b"", b"\xff\n--", line, TEXT, b"", b"2", line + b"--", b""])
    for kind in (f"multipart/form-data; {STRANGE[boundary]}", "multipart/form-data", ""):
        parts = multipart_parts(body, kind)
        assert [part[:3] for part in parts] == [
            ("file", "a.png", b"\xff\n--"), ("text", None, b"2"),
        ]  # fmt: skip


def test_form_after_a_preamble_needs_no_boundary_in_its_header():
    body = b"This is a form.\r\n\r\n" + part(FILE, b"1") + END
    assert multipart_parts(body, "multipart/form-data")[0].value == b"1"


@pytest.mark.parametrize("body", [b"", b"\xff\xd8", b"--", b"--b", b"--b\r\n\r\n1", b"a" * 9999])
def test_body_that_is_no_form_has_no_parts(body):
    assert multipart_parts(body, "multipart/form-data") == []


@pytest.mark.parametrize("end", [b"", b"\r\n", b"--b--\r\n", b"\r\n--"])
def test_last_boundary_or_the_line_break_before_it_may_be_missing(end):
    """Then the last value has what follows it: decoders of images ignore that."""
    body = part(TEXT, b"1") + b"--b\r\n" + FILE + b"\r\n\r\n2" + end
    assert [part.value for part in multipart_parts(body, TYPE)] == [b"1", b"2" + end]


@pytest.mark.parametrize("end", [b"--b\r\n", b"--b", b"--b--", b"--b  \r\n\r\n"])
def test_dashes_after_the_last_boundary_may_be_missing(end):
    assert [part.value for part in multipart_parts(part(FILE, b"1") + end, TYPE)] == [b"1"]


def test_lines_that_only_begin_with_the_boundary_belong_to_the_value():
    inner = b"\r\n--bb\r\n" + TEXT + b"\r\n\r\n1\r\n--bb--"
    assert multipart_parts(part(FILE, inner) + END, TYPE)[0].value == inner


def test_header_bytes_that_are_not_utf_8_are_replaced():
    found = multipart_parts(part(FILE.replace(b"a.png", b"\xe4\xff.png"), b"1") + END, TYPE)
    assert found == [("file", "\ufffd\ufffd.png", b"1", "")]


@pytest.mark.parametrize("text", [b"Image/JPEG", b"image/jpeg; charset=x", b"image/jpeg ;a"])
def test_part_has_its_content_type_without_parameters(text):
    (found,) = multipart_parts(part(FILE + b"\r\nContent-Type: " + text) + END, TYPE)
    assert found.kind == "image/jpeg"


@pytest.mark.parametrize(
    "body",
    [
        b"--b\r\n" + FILE,
        part(FILE, b"1") + b"--b\r\n" + FILE,
        part(FILE + b"\r\nX: " + b"a" * 10_000) + END,
        part(b"a:b\r\n" * 10_000 + FILE) + END,
    ],
)
def test_truncated_form_or_endless_headers_are_400(body):
    with pytest.raises(BadRequest, match=r"ends too early, or .* 8,192 bytes"):
        multipart_parts(body, TYPE)


@pytest.mark.parametrize("line", [b"--%s", b"--b%s\r\n", b"--%s\r\na:b", b"\n--%s"])
def test_line_of_blanks_takes_no_more_time_than_other_lines(line):
    def seconds(sign):
        body = line % (sign * 8000)
        began = thread_time()
        for _ in range(20):
            begins_like_a_form(body)
            with suppress(BadRequest):
                multipart_parts(body, TYPE)
        return thread_time() - began

    assert min(seconds(b" ") for _ in range(3)) < 20 * min(seconds(b"x") for _ in range(3)) + 0.01


def test_headers_of_all_fields_together_have_a_limit():
    head = TEXT + b"\r\nX: " + b"a" * 8000
    assert len(multipart_parts(part(head) * 3 + END, TYPE)) == 3
    with pytest.raises(BadRequest, match=r"30,300 in all"):
        multipart_parts(part(head) * 4 + END, TYPE)


def test_one_field_too_many_is_413():
    most = MAX_OTHERS + 3
    assert len(multipart_parts(part(TEXT) * most + END, TYPE, 3)) == most
    assert len(urlencoded_parts(b"&".join([b"a=1"] * most), 3)) == most
    for parse in (
        lambda: multipart_parts(part(TEXT) * (most + 1) + END, TYPE, 3),
        lambda: urlencoded_parts(b"&".join([b"a=1"] * (most + 1)), 3),
    ):
        with pytest.raises(TooLarge, match="more than 103 fields"):
            parse()


@pytest.mark.parametrize("pairs", [[("file", "a/b=="), ("ä", "%41 é&=")], [("", "")], [("a", "")]])
def test_urlencoded_parts_agree_with_urllib(pairs):
    body = urlencode(pairs).replace("+", "%20")
    expected = parse_qsl(body, keep_blank_values=True)
    assert [(f.name, f.value.decode()) for f in urlencoded_parts(body.encode())] == expected


def test_plus_in_a_urlencoded_form_stays():
    assert urlencoded_parts(b"file=a+b") == [Part("file", None, b"a+b")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"%2B%2f%3D", b"+/="),
        (b"%2541", b"%41"),
        (b"a=b", b"a=b"),
        (b"%", b""),
        (b"a\r\n b ", None),
    ],
)
def test_percent_escapes_are_decoded_once(text, expected):
    assert unquote(text) == (text if expected is None else expected)


N = 1_000_000
HOSTILE = {
    "fields": lambda: urlencoded_parts(b"a&" * N),
    "escapes": lambda: urlencoded_parts(b"a=" + b"%41" * N),
    "escapes and letters": lambda: urlencoded_parts(b"a=" + b"%41\xc3\xa4" * N),
    "parts": lambda: multipart_parts(part(TEXT) * (N // 10) + END, TYPE),
    "headers": lambda: multipart_parts(part(b":\n" * N + FILE) + END, TYPE),
    "options": lambda: multipart_parts(part(FILE + b";a=b" * N) + END, TYPE),
    "a long name": lambda: multipart_parts(part(FILE.replace(b"file", b"f" * N)) + END, TYPE),
    "a preamble": lambda: multipart_parts(b"--" * N, TYPE),
    "false delimiters": lambda: multipart_parts(part(FILE, b"\r\n--a" * N) + END, TYPE),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_form_needs_only_a_few_times_its_size(case):
    tracemalloc.start()
    try:
        HOSTILE[case]()
    except (BadRequest, TooLarge):
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 30 * N


def test_hostile_form_is_searched_in_steps(monkeypatch):
    """A search for a boundary in one step would take up to 90 ms, in which no other thread runs."""
    value = b"\r\n--a" * 1000
    expected = multipart_parts(b"--" * 1000 + b"\r\n" + part(FILE, value) + END, TYPE)
    assert expected[0].value == value
    for step in (1, 5, 10, 1000):
        monkeypatch.setattr("predictor.web.forms.STEP", step)
        body = b"--" * 1000 + b"\r\n" + part(FILE, value) + END
        assert multipart_parts(body, TYPE) == expected


def test_find_searches_at_most_a_step_at_once(monkeypatch):
    monkeypatch.setattr("predictor.web.forms.STEP", 10)

    class Watched(bytes):
        def find(self, text, begin, end):
            assert end - begin <= 10 + len(text)
            return bytes.find(self, text, begin, end)

    assert _find(Watched(b"-" * 95 + b"--b"), b"--b", 0) == 95
    assert _find(Watched(b"-" * 95), b"--b", 0) == -1


@pytest.mark.parametrize("step", [3, 4, 5, 7, 20])
def test_escapes_are_decoded_at_every_boundary_of_a_step(monkeypatch, step):
    texts = [b"a%41%42=%43", b"%41" * 50, b"=%3D%", b"a" * 20 + b"%e4"]
    expected = [unquote(text) for text in texts]
    monkeypatch.setattr("predictor.web.forms.STEP", step)
    assert [unquote(text) for text in texts] == expected
