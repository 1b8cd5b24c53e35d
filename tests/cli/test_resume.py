import csv
import json

import pytest

from pictures import picture
from predictor.cli import resume


@pytest.fixture
def folder(tmp_path):
    """Four photos, one of them damaged, one with a strange name."""
    (tmp_path / "photos").mkdir()
    for name, colour in (("a.png", "red"), ('c "x",\n.png', "green"), ("d.png", "blue")):
        (tmp_path / "photos" / name).write_bytes(picture(colour))
    (tmp_path / "photos" / "b.png").write_bytes(b"no photo")
    return tmp_path / "photos"


def run(predict, folder, output, *options):
    return predict(folder, "--output", output, "--top-k", 2, *options)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_run_that_was_broken_anywhere_is_continued_to_the_same_results(
    predict, folder, tmp_path, suffix
):
    output = tmp_path / f"results.{suffix}"
    status, out, err = run(predict, folder, output)
    whole = output.read_bytes()
    assert (status, out, err) == (1, "", "")
    for size in [*range(0, len(whole), 29), len(whole) - 1, len(whole)]:
        output.write_bytes(whole[:size])
        status, _, err = run(predict, folder, output, "--resume")
        assert output.read_bytes() == whole, size
        assert (status, err) == (1, "")  # b.png has failed, now or before


def test_finished_photos_are_not_classified_again(predict, folder, tmp_path):
    output = tmp_path / "results.csv"
    run(predict, folder, output)
    for photo in folder.glob("[abc]*.png"):
        photo.write_bytes(picture("blue"))
    run(predict, folder, output, "--resume")
    with output.open(newline="") as file:
        names = [row["class_name"] for row in csv.DictReader(file)]
    assert names[0] == "red_thing"


def test_new_photos_are_added(predict, folder, tmp_path):
    output = tmp_path / "results.jsonl"
    run(predict, folder, output)
    (folder / "0.png").write_bytes(picture("red"))
    run(predict, folder, output, "--resume")
    files = [json.loads(line)["file"] for line in output.read_text().splitlines()]
    assert sorted(files) == sorted({str(path) for path in folder.iterdir()})


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_name_that_is_not_utf_8_is_recognised(predict, folder, tmp_path, suffix):
    odd = folder / "\udcff.png"
    odd.write_bytes(picture("red"))
    output = tmp_path / f"results.{suffix}"
    run(predict, folder, output)
    (folder / "e.png").write_bytes(picture("red"))
    run(predict, folder, output, "--resume")
    whole = output.read_text("utf-8")
    run(predict, folder, output, "--resume")
    assert output.read_text("utf-8") == whole
    assert "\\udcff.png" in whole


def test_resume_without_earlier_results_starts_anew(predict, folder, tmp_path):
    output = tmp_path / "results.csv"
    run(predict, folder, output, "--resume")
    assert output.read_text().count("_thing") == 6


def test_existing_results_are_not_overwritten(predict, folder, tmp_path):
    output = tmp_path / "results.csv"
    output.write_text("mine")
    status, _, err = run(predict, folder, output)
    assert (status, output.read_text()) == (2, "mine")
    assert f"{output} exists. Add --resume" in err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "mine"),
        ("a.csv", "file;class_index\n"),
        ("a.csv", "\ufefffile,class_index,class_id,class_name,probability,error\n"),
        ("a.jsonl", '{"name": 1}\n'),
        ("a.jsonl", '{"file": "a"}\nmine\n{"file": "b"}\n'),
        ("a.jsonl", '{"file": "a"}\n[]\n{"file": "b"}\n'),
    ],
)
def test_another_file_is_neither_continued_nor_changed(predict, folder, tmp_path, name, content):
    output = tmp_path / name
    output.write_text(content)
    status, _, err = run(predict, folder, output, "--resume")
    assert (status, output.read_text()) == (2, content)
    assert f"{output} cannot be continued" in err


def test_file_of_another_format_is_named_so(predict, folder, tmp_path):
    output = tmp_path / "a.jsonl"
    assert run(predict, folder, output)[0] == 1  # b.png is not a photo
    status, _, err = run(predict, folder, output, "--resume", "--format", "csv")
    assert (status, "another --format, name that one" in err, "b'" in err) == (2, True, False)


@pytest.mark.parametrize(
    "options", [[], ["--output", "a.txt"], ["--output", "a.csv", "--format", "table"]]
)
def test_resume_needs_a_file_that_can_be_continued(predict, folder, options):
    status, _, err = predict(folder, "--resume", *options)
    assert (status, err) == (
        2, "--resume needs --output with a name that ends in .csv or .jsonl.\n",
    )  # fmt: skip


def test_only_the_last_photo_of_earlier_results_is_done_again(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"file": "a"}\n{"file": "b", "error": "e"}\n{"file": "c"}\n{"fi')
    earlier = resume.read(path, "jsonl")
    assert (earlier.names, earlier.failed) == ({"a", "b"}, 1)
    assert path.read_bytes()[earlier.size :] == b'{"file": "c"}\n{"fi'
