import csv
import io
import json
import sys

import pytest

from conftest import toy_model
from pictures import picture
from predictor import __main__ as cli
from predictor.errors import WeightsError


@pytest.fixture
def predict(monkeypatch, capsys):
    """Run the command; returns its exit status, its output and its errors."""
    monkeypatch.setattr("predictor.engine.classifier.load_engine", None)
    monkeypatch.setattr(cli.Classifier.__init__, "__defaults__", (lambda _: toy_model(),))

    def run(*arguments):
        status = cli.main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.png").write_bytes(picture("red"))
    (tmp_path / "b.jpg").write_bytes(b"no photo")
    (tmp_path / "sub" / "c.PNG").write_bytes(picture("blue"))
    (tmp_path / "notes.txt").write_text("not meant")
    return tmp_path


def test_a_photo_is_a_line_of_a_table(predict, folder):
    status, out, _ = predict(folder / "a.png", "--top-k", 2)
    assert status == 0
    first, second = out.splitlines()
    assert first.split() == [str(folder / "a.png"), "100.0%", "n00000000", "red_thing"]
    assert second.split()[1:] == ["n00000001", "green_thing"]


def test_a_folders_photos_come_in_order_and_a_bad_one_does_not_stop_the_rest(predict, folder):
    status, out, _ = predict(folder, "--format", "jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 1
    assert [row["file"].removeprefix(f"{folder}/") for row in rows] == [
        "a.png",
        "b.jpg",
        "sub/c.PNG",
    ]
    assert [row.get("class_name") for row in rows] == ["red_thing", None, "blue_thing"]
    assert "not an image" in rows[1]["error"]


def test_csv_has_a_row_a_class_and_a_column_for_errors(predict, folder):
    _, out, _ = predict(folder, "--format", "csv", "--top-k", 2)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["class_name"] for row in rows] == [
        "red_thing",
        "green_thing",
        "",
        "blue_thing",
        "red_thing",
    ]
    assert "not an image" in rows[2]["error"]


def test_a_photo_comes_from_stdin(predict, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(picture("green"))))
    status, out, _ = predict("-")
    assert (status, out.split()[-1]) == (0, "green_thing")


def test_a_file_that_is_not_there_is_an_error_of_its_own(predict, folder):
    status, out, _ = predict(folder / "a.png", folder / "z.png")
    assert status == 1
    assert "No such file" in out
    assert "red_thing" in out


def test_a_folder_without_photos_is_said(predict, tmp_path):
    assert predict(tmp_path)[0] == 2


@pytest.mark.parametrize("top_k", [0, 4])
def test_top_k_out_of_range_is_said_once(predict, folder, top_k):
    status, out, err = predict(folder, "--top-k", top_k)
    assert (status, out) == (2, "")
    assert "1 to 3" in err


def test_a_model_that_cannot_be_loaded_is_said(predict, folder, monkeypatch, caplog):
    def load(*_):
        raise WeightsError("No weights.")

    monkeypatch.setattr(cli.Classifier.__init__, "__defaults__", (load,))
    status, out, err = predict(folder)
    assert (status, out) == (2, "")
    assert "No weights." in caplog.text + err


def test_a_bad_setting_is_said(predict, folder, monkeypatch):
    monkeypatch.setenv("PREDICTOR_MAX_QUEUE", "many")
    status, _, err = predict(folder)
    assert status == 2
    assert "'many'" in err
