"""Any input gets a documented status and a well-formed answer, and the process survives."""

import random
import string
import sys

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pictures import picture
from tools import forms, fuzz
from tools.originals import originals

SLICE = 4000
THOROUGH = settings(
    max_examples=150, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # the app keeps no state
)  # fmt: skip
PHOTO = picture("blue")


@pytest.fixture(scope="module")
def report():
    """The first cases of one seed; ``make fuzz`` runs more."""
    return fuzz.fuzz(seed=0, count=SLICE, limit_s=20)


def test_every_mutated_image_gets_a_valid_answer(report):
    assert report.findings == []
    assert sum(report.statuses.values()) == SLICE


def test_mutations_get_past_the_format_checks(report):
    assert {200, 400, 413, 415, 422} == set(report.statuses)
    assert report.statuses[200] > SLICE / 10
    assert report.statuses[422] > SLICE / 10


def test_mutated_images_leak_no_memory(report):
    assert report.growth(warm_up=SLICE // 4) < 0.5


def test_every_original_image_is_classified(client):
    for original in originals():
        if not original.startswith(b"P3"):  # PPM as text, which the app refuses
            assert client.post("/predict", data=original).status_code == 200, original[:40]


def test_valid_forms_are_parsed_as_by_werkzeug():
    for number in range(2000):
        assert forms.disagreement(random.Random(number), PHOTO) is None


def test_wrongly_parsed_form_is_a_finding(monkeypatch):
    monkeypatch.setattr("tools.forms.multipart_parts", lambda *_: [])
    assert "parsed as []" in forms.disagreement(random.Random(0), PHOTO)


def test_seed_and_number_always_make_the_same_case():
    assert fuzz.case(7, 3) == fuzz.case(7, 3) != fuzz.case(7, 4)


def test_a_crash_costs_one_case_and_is_a_finding(tmp_path, monkeypatch):
    script = tmp_path / "child.py"
    script.write_text("""
import os, sys
for number in range(int(sys.argv[3]), int(sys.argv[4])):
    print("begin", number, flush=True)
    if number == 3:
        os.abort()
    print("end", 200, 9.0 if number == 5 else 0.1, 70_000, "status 500" if number == 7 else "")
""")
    monkeypatch.setattr(fuzz, "CHILD", [sys.executable, str(script), "--child"])
    report = fuzz.fuzz(seed=0, count=9, limit_s=5)
    assert [number for number, _ in report.findings] == [3, 5, 7]
    assert report.statuses == {200: 8}


def check(app: Flask, case: fuzz.Case) -> None:
    client = app.test_client()
    assert fuzz.complaint(fuzz.ask(client, case)) is None
    assert client.post("/predict", data=PHOTO).json["class_name"] == "blue_thing"


text = st.text(alphabet=st.characters(codec="utf-8"), max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=10,
)


@THOROUGH
@given(value=json_values, key=st.sampled_from(["image", "images", "img"]))
def test_any_json_gets_a_valid_answer(app, value, key):
    for content in (value, {key: value}, {key: [value, value]}):
        body = fuzz.json.dumps(content).encode()
        check(app, fuzz.Case(body, "application/json"))


@THOROUGH
@given(body=st.binary(max_size=200), kind=st.sampled_from(["", "; charset=utf-16", "; charset=x"]))
def test_any_bytes_as_json_get_a_valid_answer(app, body, kind):
    check(app, fuzz.Case(body, "application/json" + kind))


names = st.text(alphabet=string.printable, max_size=20)


@THOROUGH
@given(
    boundary=st.text(alphabet=string.ascii_letters + "'()+_,-./:=? ", max_size=80),
    parts=st.lists(st.tuples(names, names, st.binary(max_size=60)), max_size=5),
    end=st.sampled_from([b"--\r\n", b"", b"\r\n", b"--"]),
)
def test_any_multipart_gets_a_valid_answer(app, boundary, parts, end):
    line = b"--" + boundary.encode()
    body = b"".join(
        line + f'\r\nContent-Disposition: form-data; {name}="file"; {extra}'.encode() + b"\r\n\r\n"
        + content + b"\r\n"
        for name, extra, content in parts
    )  # fmt: skip
    kind = f'multipart/form-data; boundary="{boundary}"'
    check(app, fuzz.Case(body + line + end, kind))


@THOROUGH
@given(query=st.text(alphabet=string.printable, max_size=60), key=st.booleans())
def test_any_query_gets_a_valid_answer(app, query, key):
    clean = "".join(c for c in query if c not in "\r\n\t\x0b\x0c#")
    check(app, fuzz.Case(PHOTO, query=f"top_k={clean}" if key else clean))


@THOROUGH
@given(kind=st.text(alphabet=string.printable, max_size=60), length=st.integers(-5, 10**12))
def test_any_content_type_and_length_get_a_valid_answer(app, kind, length):
    clean = "".join(c for c in kind if c not in "\r\n\x0b\x0c")
    check(app, fuzz.Case(PHOTO, clean, headers={"Content-Length": str(length)}))


@THOROUGH
@given(body=st.binary(max_size=300), kind=st.sampled_from(["image=", "images=", "file=", "%", ""]))
def test_any_form_gets_a_valid_answer(app, body, kind):
    check(app, fuzz.Case(kind.encode() + body, "application/x-www-form-urlencoded"))
