import base64
import csv
import io
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pictures import COLOURS, picture
from predictor.cli import evaluation, photos
from predictor.models.labels import Label
from predictor.models.outputs import Output
from toy import ToyModel, toy_model


@pytest.fixture
def put(tmp_path):
    """Write photos of a colour into the folder of a class; return the top folder."""

    def write(word, *colours):
        folder = tmp_path / "photos" / word
        folder.mkdir(parents=True, exist_ok=True)
        for colour in colours:
            content = picture(colour) if colour in COLOURS else colour
            (folder / f"{len(list(folder.iterdir()))}.png").write_bytes(content)
        return tmp_path / "photos"

    return write


@pytest.fixture
def folder(put):
    """Five photos, one of them wrong, and one that is no photo."""
    put("red_thing", "red", "red", "blue")
    put("green_thing", "green", b"no photo")
    return put("blue_thing", "blue")


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def named(labels):
    """A toy model with other labels."""
    model = toy_model()
    return lambda *_: replace(model, card=replace(model.card, labels=tuple(labels)))


# What is printed


def test_terminal_shows_all_figures(predict, folder):
    status, out, err = predict("evaluate", folder)
    assert status == 1
    assert err.startswith(f"{folder}/green_thing/1.png: This is not an image")
    facts = dict(re.findall(r"^([\w-]+) +(.*)", out, re.MULTILINE))
    assert facts["photos"] == f"5 of {folder}; classes are called by their name"
    assert facts["errors"] == "1, not counted below"
    assert facts["top-1"] == "80.0%, 4 of 5; 95 % interval 37.6% to 96.4%"
    assert facts["top-5"] == "the model has only 3 classes"
    assert re.fullmatch(r"[\d.]+ photos/s, with reading and decoding; cpu, float32", facts["speed"])
    lines = [line.split() for line in out.splitlines()]
    assert ["3", "66.7%", "100.0%", "n00000000", "red_thing"] in lines
    assert ["1", "100.0%", "50.0%", "n00000002", "blue_thing"] in lines
    assert ["1", "n00000000", "red_thing", "→", "n00000002", "blue_thing"] in lines
    assert ["5", "100.0%", "80.0%", "above", "0.93"] in lines


def test_without_an_error_the_exit_status_is_0(predict, put):
    assert predict("evaluate", put("red_thing", "red"))[0] == 0


def test_photos_outside_of_sub_folders_are_counted(predict, put):
    folder = put("red_thing", "red")
    (folder / "a.png").write_bytes(picture("red"))
    status, _, err = predict("evaluate", folder)
    assert (status, err) == (0, "1 file left out: 1 in no sub-folder\n")


def test_csv_has_a_row_for_each_photo(predict, folder, tmp_path):
    predict("evaluate", folder, "--csv", tmp_path / "rows.csv")
    rows = rows_of((tmp_path / "rows.csv").read_text())
    assert [Path(row["file"]).relative_to(folder).as_posix() for row in rows] == [
        "blue_thing/0.png", "green_thing/0.png", "green_thing/1.png",
        "red_thing/0.png", "red_thing/1.png", "red_thing/2.png",
    ]  # fmt: skip
    wrong, failed = rows[5], rows[2]
    assert (wrong["class_index"], wrong["class_name"]) == ("0", "red_thing")
    assert (wrong["answer_index"], wrong["answer_id"]) == ("2", "n00000002")
    assert (wrong["right"], wrong["in_top_5"], wrong["error"]) == ("False", "True", "")
    assert float(wrong["probability"]) > 0.99
    assert (failed["class_name"], failed["answer_name"]) == ("green_thing", "")
    assert "not an image" in failed["error"]


def test_few_photos_are_read_ahead_of_the_results(predict, tmp_path, monkeypatch):
    """So memory does not grow with the number of photos."""
    (tmp_path / "a.png").write_bytes(picture("red"))
    (tmp_path / "list.csv").write_text("path,class\n" + "a.png,red_thing\n" * 500)
    read, most = [0], [0]
    real, add = photos.read, evaluation.Evaluation.add

    def counted(path):
        read[0] += 1
        return real(path)

    def added(*args):
        most[0] = max(most[0], read[0])
        read[0] -= 1
        add(*args)

    monkeypatch.setattr(photos, "read", counted)
    monkeypatch.setattr(evaluation.Evaluation, "add", added)
    assert predict("evaluate", tmp_path / "list.csv")[0] == 0
    assert 0 < most[0] < 100


# The page


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(predict, tmp_path, *arguments, **options):
    assert predict("evaluate", *arguments, "--html", tmp_path / "page.html", **options)[0] < 2
    return Page((tmp_path / "page.html").read_text())


def test_page_has_the_figures_and_what_the_model_sees_of_wrong_photos(predict, folder, tmp_path):
    half = Image.new("RGB", (40, 20), "blue")
    half.paste("yellow", (0, 0, 9, 20))  # outside of the centre that the model sees
    half.save(folder / "red_thing" / "2.png")
    page = page_of(predict, tmp_path, folder)
    assert "80.0% of 5 photos are right" in page.text
    assert "95 % interval 37.6% to 96.4%" in page.text
    (wrong,) = page.all("img")
    data = base64.b64decode(wrong["src"].removeprefix("data:image/jpeg;base64,"))
    seen = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert seen.shape == (8, 8, 3)
    assert np.abs(seen - (0, 0, 255)).max() < 30


def test_page_loads_nothing_and_runs_nothing(predict, folder, tmp_path):
    page = page_of(predict, tmp_path, folder)
    assert {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags} == set()
    assert {"http-equiv": "Content-Security-Policy",
            "content": "default-src 'none'; style-src 'unsafe-inline'; img-src data:"} in page.all(
        "meta"
    )  # fmt: skip
    urls = [
        url
        for _, attributes in page.tags
        for key in ("src", "href")
        if (url := attributes.get(key))
    ]
    assert all(url.startswith("data:image/jpeg;base64,") for url in urls)


def test_names_of_files_and_classes_are_escaped_in_the_page(predict, put, tmp_path):
    evil = "<img src=x onerror=alert(1)>&amp;"
    folder = put(evil, "red", "blue")
    (folder / evil / "1.png").rename(folder / evil / f"{evil}.png")
    labels = Label("<b>", evil), Label("1", "one"), Label("2", "<script>")
    page = page_of(predict, tmp_path, folder, load=named(labels))
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert (page.all("b"), page.all("script")) == ([], [])
    assert page.text.count(f"{evil}.png") == 1
    assert page.text.count("<script>") >= 3  # answer, confused and class


def test_page_without_wrong_answers_says_so(predict, put, tmp_path):
    page = page_of(predict, tmp_path, put("red_thing", "red"))
    assert "None." in page.text
    assert page.all("img") == []


# Outputs and models that do not work


def test_output_that_cannot_be_written_is_refused_before_the_model_is_loaded(predict, folder):
    load = lambda *_: pytest.fail("loaded")  # noqa: E731
    status, _, err = predict("evaluate", folder, "--html", "/nowhere/page.html", load=load)
    assert (status, err) == (2, "The results cannot be written: No such file or directory.\n")


def test_list_of_classes_is_not_overwritten(predict, tmp_path):
    table = tmp_path / "list.csv"
    table.write_text("path,class\na.png,0\n")
    status, _, err = predict("evaluate", table, "--csv", table)
    assert (status, err) == (2, f"{table} has the classes. Write the results to another file.\n")
    assert table.read_text() == "path,class\na.png,0\n"


def test_model_of_several_labels_is_refused_with_a_sentence(predict, folder):
    model = toy_model()
    output = Output("sigmoid", 0.5)
    load = lambda *_: replace(model, card=replace(model.card, output=output))  # noqa: E731
    status, out, err = predict("evaluate", folder, load=load)
    assert (status, out) == (2, "")
    assert err.startswith("toy answers with several labels at once.")


def test_photos_that_all_fail_are_exit_status_2(predict, put):
    folder = put("red_thing", b"no photo")
    status, out, err = predict("evaluate", folder)
    assert (status, out) == (2, "")
    assert "not an image" in err
    assert err.endswith(f"No photo of {folder} can be evaluated.\n")


def test_answers_that_are_not_numbers_are_counted_as_errors(predict, folder):
    class Broken(ToyModel):
        def logits(self, images, lanes):
            return super().logits(images, lanes) + (np.nan if images[0].any() else 0)

    status, _, err = predict("evaluate", folder, load=lambda *_: toy_model(Broken()))
    assert status == 2
    assert err.count("contains NaN or infinity") == 5


def test_ctrl_c_is_exit_status_130(predict, folder, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation.Evaluation, "add", interrupted)
    assert predict("evaluate", folder)[::2] == (130, "Interrupted.\n")


def test_terminal_shows_a_progress_bar(predict, folder, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert "0/6" in predict("evaluate", folder)[2]
