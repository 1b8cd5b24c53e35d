import json

import pytest

from predictor.errors import BadRequest, TooLarge
from predictor.web import json_body
from predictor.web.json_body import parse_json


@pytest.mark.parametrize("code", ["utf-16", "utf-16-le", "utf-32"])
def test_json_must_be_utf_8(code):
    """Python decodes surrogates one by one, with its lock: in 20 MB this takes 3 s."""
    assert parse_json('{"a": "é"}'.encode("utf-8-sig")) == {"a": "é"}
    for body in ('{"a": "b"}'.encode(code), b'{"a": "\xed\xa0\x80"}'):
        with pytest.raises(BadRequest, match="not JSON"):
            parse_json(body)


def test_millions_of_escapes_are_413_before_parsing(monkeypatch):
    """They keep Python's lock. Base64 with an escape for each line end or slash has fewer."""
    assert parse_json(b'["%s"]' % (b"\\n" * 1_000_000))
    monkeypatch.setattr("json.loads", pytest.fail)
    with pytest.raises(TooLarge):
        parse_json(b'["%s"]' % (b"\\n" * 1_000_001))


@pytest.mark.parametrize("is_tensor", [True, False])
@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"-Infinity", b"9" * 41])
def test_json_with_nan_or_a_long_number_is_400(value, is_tensor):
    with pytest.raises(BadRequest, match="has NaN, Infinity or a number that is too long"):
        parse_json(b'{"data": [1, 2.5, %s]}' % value, is_tensor)


@pytest.mark.parametrize("text", [b"%d" % -(10**38), b"255,0,1,2,3", b"1.5,0,-3e4", b"true,null"])
@pytest.mark.parametrize("turn", [0, 500_000])
def test_finite_numbers_are_parsed_as_sent(monkeypatch, text, turn):
    monkeypatch.setattr(json_body, "TURN", turn)
    body = b"[%s]" % text
    assert parse_json(body, is_tensor=True) == json.loads(body)


@pytest.mark.parametrize("others", [0, 11_000])
def test_a_fraction_of_more_than_40_characters_is_400(others):
    """774 digits take 60 µs, in which no other thread runs."""
    assert parse_json(b"[%s%s]" % (b"0.5," * others, b"1." + b"3" * 38), is_tensor=True)
    with pytest.raises(BadRequest, match="at most 40 digits"):
        parse_json(b"[%s%s]" % (b"0.5," * others, b"1." + b"3" * 39), is_tensor=True)


@pytest.mark.parametrize("value", [b"null,", b"true,", b"false,"])
def test_millions_of_json_literals_are_413_before_parsing(monkeypatch, value):
    monkeypatch.setattr("json.loads", lambda *_args, **_options: pytest.fail("parsed"))
    with pytest.raises(TooLarge, match="too many values"):
        parse_json(b"[%s0]" % (value * 2_000_000), is_tensor=True)


def test_a_dense_tensor_of_whole_numbers_needs_no_python_calls(monkeypatch):
    monkeypatch.setattr(json_body, "_whole_number", lambda _: pytest.fail("called"))
    assert parse_json(b'{"data": [%s0]}' % (b"255, " * 1000), is_tensor=True)


def test_one_more_value_is_accepted_for_each_byte_sent():
    body = b"[%s0]" % (b"[]," * 20_999)
    assert parse_json(body, is_tensor=True, sent=1000)
    with pytest.raises(TooLarge):
        parse_json(body, is_tensor=True, sent=999)
