"""Whatever is sent: a documented status, an answer in its shape, and the process lives on."""

import string

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pictures import picture
from tools import fuzz, mutations

SLICE = 4000
THOROUGH = settings(
    max_examples=150, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # the app keeps nothing
)  # fmt: skip
PHOTO = picture("blue")


@pytest.fixture(scope="module")
def report():
    """A slice of the long run, always the same: ``make fuzz`` has the rest."""
    return fuzz.fuzz(seed=0, count=SLICE, limit_s=20)


def test_no_mutated_image_breaks_a_rule(report):
    assert report.findings == []
    assert sum(report.statuses.values()) == SLICE


def test_the_mutations_reach_the_decoders_and_not_only_their_doors(report):
    assert {200, 400, 413, 415, 422} == set(report.statuses)
    assert report.statuses[200] > SLICE / 10
    assert report.statuses[422] > SLICE / 10


def test_mutated_images_leave_no_memory_behind(report):
    assert report.growth(warm_up=SLICE // 4) < 0.5


def test_every_original_is_a_good_image(client):
    for original in mutations.originals():
        if not original.startswith(b"P3"):  # as text
            assert client.post("/predict", data=original).status_code == 200, original[:40]


def test_a_case_is_the_same_whenever_it_is_made():
    assert fuzz.case(7, 3) == fuzz.case(7, 3) != fuzz.case(7, 4)


def test_a_child_that_crashes_costs_one_case_and_every_finding_is_named(tmp_path, monkeypatch):
    script = tmp_path / "child.py"
    script.write_text("""
import os, sys
for number in range(int(sys.argv[3]), int(sys.argv[4])):
    print("begin", number, flush=True)
    if number == 3:
        os.abort()
    print("end", 200, 9.0 if number == 5 else 0.1, 70_000, "status 500" if number == 7 else "")
""")
    monkeypatch.setattr(fuzz, "__file__", str(script))
    report = fuzz.fuzz(seed=0, count=9, limit_s=5)
    assert [number for number, _ in report.findings] == [3, 5, 7]
    assert report.statuses == {200: 8}


def answered(app: Flask, case: fuzz.Case) -> None:
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
def test_any_json(app, value, key):
    for content in (value, {key: value}, {key: [value, value]}):
        body = fuzz.json.dumps(content).encode()
        answered(app, fuzz.Case(body, "application/json"))


@THOROUGH
@given(body=st.binary(max_size=200), kind=st.sampled_from(["", "; charset=utf-16", "; charset=x"]))
def test_any_bytes_as_json(app, body, kind):
    answered(app, fuzz.Case(body, "application/json" + kind))


names = st.text(alphabet=string.printable, max_size=20)


@THOROUGH
@given(
    boundary=st.text(alphabet=string.ascii_letters + "'()+_,-./:=? ", max_size=80),
    parts=st.lists(st.tuples(names, names, st.binary(max_size=60)), max_size=5),
    end=st.sampled_from([b"--\r\n", b"", b"\r\n", b"--"]),
)
def test_any_multipart(app, boundary, parts, end):
    line = b"--" + boundary.encode()
    body = b"".join(
        line + f'\r\nContent-Disposition: form-data; {name}="file"; {extra}'.encode() + b"\r\n\r\n"
        + content + b"\r\n"
        for name, extra, content in parts
    )  # fmt: skip
    kind = f'multipart/form-data; boundary="{boundary}"'
    answered(app, fuzz.Case(body + line + end, kind))


@THOROUGH
@given(query=st.text(alphabet=string.printable, max_size=60), key=st.booleans())
def test_any_query(app, query, key):
    clean = "".join(c for c in query if c not in "\r\n\t\x0b\x0c#")
    answered(app, fuzz.Case(PHOTO, query=f"top_k={clean}" if key else clean))


@THOROUGH
@given(kind=st.text(alphabet=string.printable, max_size=60), length=st.integers(-5, 10**12))
def test_any_content_type_and_length(app, kind, length):
    clean = "".join(c for c in kind if c not in "\r\n\x0b\x0c")
    answered(app, fuzz.Case(PHOTO, clean, headers={"Content-Length": str(length)}))


@THOROUGH
@given(body=st.binary(max_size=300), kind=st.sampled_from(["image=", "images=", "file=", "%", ""]))
def test_any_form(app, body, kind):
    answered(app, fuzz.Case(kind.encode() + body, "application/x-www-form-urlencoded"))
