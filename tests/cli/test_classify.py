import csv
import io
import json
import os
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from pictures import picture
from predictor.errors import WeightsError
from toy import ToyInfo, toy_model


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.png").write_bytes(picture("red"))
    (tmp_path / "b.jpg").write_bytes(b"no photo")
    (tmp_path / "sub" / "c.PNG").write_bytes(picture("blue"))
    (tmp_path / "notes.txt").write_text("not a photo")
    return tmp_path


def test_table_has_a_line_per_class(predict, folder):
    status, out, _ = predict(folder / "a.png", "--top-k", 2)
    assert status == 0
    first, second = out.splitlines()
    assert first.split() == [str(folder / "a.png"), "100.0%", "n00000000", "red_thing"]
    assert second.split()[1:] == ["n00000001", "green_thing"]


def test_folder_is_sorted_and_a_bad_photo_fails_alone(predict, folder):
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


def test_csv_has_a_row_per_class_and_a_column_for_errors(predict, folder):
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


def test_dash_reads_a_photo_from_stdin(predict, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(picture("green"))))
    status, out, _ = predict("-")
    assert (status, out.split()[-1]) == (0, "green_thing")


def test_missing_file_is_an_error_in_its_line(predict, folder):
    status, out, _ = predict(folder / "a.png", folder / "z.png")
    assert status == 1
    assert "No such file" in out
    assert "red_thing" in out


@pytest.mark.parametrize(
    ("name", "reason"), [("", "No such file or directory"), ("/dev/zero", "it is a device")]
)
def test_name_of_no_file_or_of_a_device_is_an_error_in_its_line(predict, name, reason):
    status, out, _ = predict(name)
    assert status == 1
    assert f"The file cannot be read: {reason}." in out


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8"])
def test_zero_bytes_in_a_list_are_errors_in_their_lines(predict, folder, encoding):
    """PowerShell writes UTF-16, and ``find -print0`` ends names with a zero byte."""
    (folder / "list").write_text(f"{folder}/b.png\0\n", encoding)
    status, out, _ = predict(folder / "a.png", "--files-from", folder / "list")
    assert status == 1
    assert "cannot be read: embedded null byte" in out
    assert "red_thing" in out


def test_folder_without_photos_is_exit_status_2(predict, tmp_path):
    status, _, err = predict(tmp_path)
    assert (status, err) == (2, "No image files found in the given paths.\n")
    (tmp_path / "notes.txt").write_text("not a photo")
    _, _, err = predict(tmp_path)
    assert err == "No image files found in the given paths. 1 file left out: 1 .txt\n"


def test_what_is_left_out_is_counted_on_stderr(predict, folder):
    status, _, err = predict(folder / "sub", folder)
    assert (status, err) == (1, "1 file left out: 1 .txt\n")


def test_list_of_paths_is_read_beside_the_arguments(predict, folder):
    (folder / "list").write_text(f"{folder / 'sub'}\n{folder / 'a.png'}\n")
    status, out, _ = predict(folder / "a.png", "--files-from", folder / "list", "--format", "jsonl")
    names = [json.loads(line)["file"] for line in out.splitlines()]
    a, c = str(folder / "a.png"), str(folder / "sub" / "c.PNG")
    assert (status, names) == (0, [a, c, a])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["classify"], "Name photos or folders, or a list of them with --files-from."),
        (["-", "--files-from", "-"], "Standard input is either a photo or a list of files."),
        (["--files-from", "/nowhere"], "--files-from /nowhere cannot be read: No such file"),
        (["a.png", "--output", "/nowhere/a"], "The results cannot be written: No such file"),
    ],
)
def test_options_that_cannot_work_are_one_sentence(predict, arguments, sentence):
    status, out, err = predict(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith(sentence)


def test_format_is_what_the_output_file_ends_in(predict, folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("results")
    for name in ("a.csv", "b.JSONL", "c.txt"):
        assert predict(folder / "a.png", "--output", output / name)[:2] == (0, "")
    assert (output / "a.csv").read_text().startswith("file,class_index")
    assert json.loads((output / "b.JSONL").read_text())["class_name"] == "red_thing"
    assert (output / "c.txt").read_text().split()[1] == "100.0%"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
def test_full_disk_is_exit_status_2_without_a_traceback(predict, folder):
    status, _, err = predict(folder / "a.png", "--output", "/dev/full")
    assert (status, err) == (2, "The results cannot be written: No space left on device.\n")


def test_few_photos_are_read_ahead_of_the_output(predict, folder, monkeypatch):
    """So memory does not grow with the number of photos."""
    (folder / "list").write_text(f"{folder / 'a.png'}\n" * 500)
    read, most = [0], [0]
    real, write = Path.read_bytes, tqdm.write

    def counted(path):
        read[0] += 1
        return real(path)

    def written(*args, **kwargs):
        most[0] = max(most[0], read[0])
        read[0] -= 1
        write(*args, **kwargs)

    monkeypatch.setattr(Path, "read_bytes", counted)
    monkeypatch.setattr(tqdm, "write", written)
    assert predict("--files-from", folder / "list")[0] == 0
    assert most[0] < 100


@pytest.mark.parametrize("top_k", [0, -1])
def test_top_k_below_1_is_one_error(predict, folder, top_k):
    status, out, err = predict(folder, "--top-k", top_k)
    assert (status, out) == (2, "")
    assert err == f"--top-k is {top_k}; it must be at least 1.\n"


def test_model_that_cannot_be_loaded_is_exit_status_2(predict, folder, caplog):
    def load(*_):
        raise WeightsError("No weights.")

    status, out, err = predict(folder, load=load)
    assert (status, out) == (2, "")
    assert "No weights." in caplog.text + err


def test_invalid_setting_is_exit_status_2(predict, folder, monkeypatch):
    monkeypatch.setenv("PREDICTOR_MAX_QUEUE", "many")
    status, _, err = predict(folder)
    assert status == 2
    assert "'many'" in err


@pytest.mark.parametrize(
    ("model", "fallback"),
    [(None, "efficientnet_lite0"), ("", "efficientnet_lite0"), ("vgg16", "none")],
)
def test_small_model_replaces_only_a_model_not_named(predict, folder, monkeypatch, model, fallback):
    if model is not None:
        monkeypatch.setenv("PREDICTOR_MODEL", model)
    seen = []

    def load(settings, _cpus):
        seen.append(settings.fallback_model)
        return toy_model()

    predict(folder / "a.png", load=load)
    assert seen == [fallback]


def test_environment_can_switch_the_replacement_off(predict, folder, monkeypatch):
    monkeypatch.setenv("PREDICTOR_FALLBACK_MODEL", "none")
    seen = []
    predict(folder / "a.png", load=lambda settings, _: seen.append(settings) or toy_model())
    assert seen[0].fallback_model == "none"


def test_replacement_is_a_note_on_stderr(predict, folder):
    class Info(ToyInfo):
        notice = "A stands in for B."

    model = toy_model()
    loaded = type(model)(model.scorer, Info(), model.card)
    _, out, err = predict(folder / "a.png", load=lambda *_: loaded)
    assert err == "NOTE: A stands in for B.\n"
    assert "NOTE" not in out
