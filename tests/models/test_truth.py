import subprocess

import pytest

from paths import ROOT
from pictures import picture
from predictor.errors import StartError
from predictor.images.files import Finder
from predictor.models.labels import Label, numbered
from predictor.models.truth import CLASSES, PATHS, Truth

LABELS = (Label("n1", "Egyptian_cat"), Label("n2", "crane"), Label("n3", "crane"), Label("n4", "4"))


@pytest.fixture
def folder_of(tmp_path):
    """A folder with a sub-folder of each name, each with one photo."""

    def make(*names):
        top = tmp_path / "photos"
        top.mkdir(exist_ok=True)
        for name in names:
            (top / name).mkdir()
            (top / name / "a.png").write_bytes(picture())
        return top

    return make


def read(source, labels=LABELS):
    """What the classes are called by, and the photos below the source's folder."""
    truth = Truth(source, labels)
    top = source if source.is_dir() else source.parent
    return truth.called_by, [
        (file.removeprefix(f"{top}/"), index) for file, index in truth.photos(Finder())
    ]


def refusal(source, labels=LABELS):
    with pytest.raises(StartError) as caught:
        Truth(source, labels)
    return str(caught.value)


# Folders


@pytest.mark.parametrize(
    ("names", "called_by", "indices"),
    [
        (["4", "Egyptian_cat"], "name", [3, 0]),
        (["egyptian cat"], "name", [0]),
        (["n2", "n4"], "id", [1, 3]),
        (["1", "2", "3"], "index", [1, 2, 3]),
        (["4"], "name", [3]),
    ],
)
def test_sub_folders_are_called_by_name_id_or_index(folder_of, names, called_by, indices):
    found = [(f"{name}/a.png", index) for name, index in zip(names, indices, strict=True)]
    assert read(folder_of(*names)) == (called_by, found)


def test_hidden_folders_and_folders_in_folders_are_no_classes(folder_of):
    top = folder_of("n1", ".cache")
    (top / "n1" / "more").mkdir()
    (top / "n1" / "more" / "b.png").write_bytes(picture())
    assert read(top) == ("id", [("n1/a.png", 0), ("n1/more/b.png", 0)])


@pytest.mark.parametrize("names", [["n1", "dog"], ["Egyptian_cat", "n4"], ["crane"], ["0", "4000"]])
def test_a_class_that_the_model_lacks_is_refused_by_its_name(folder_of, names):
    """``crane`` is the name of two classes, and names are not mixed with ids."""
    message = refusal(folder_of(*names))
    assert f"has {len(names)} classes." in message
    assert repr(names[-1]) in message
    assert "The model's class 0 has the id n1 and the name Egyptian_cat." in message
    assert "ImageFolder" not in message


def test_the_lines_for_an_image_folder_make_the_labels(folder_of, tmp_path):
    top = folder_of("dog", "Cat", "ape's", "10", "9").rename(tmp_path / "ape's photos")
    (top / "readme.txt").write_text("not a class")
    message = refusal(top, numbered(5))
    assert "--labels labels.txt" in message
    command = message.splitlines()[-1]
    subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "labels.txt").read_text().split() == sorted(
        ["dog", "Cat", "ape's", "10", "9"]
    )


def test_folder_without_sub_folders_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    message = f"{tmp_path} has no classes. In a folder, each has a sub-folder."
    assert refusal(tmp_path) == message


def test_source_that_does_not_exist_is_refused(tmp_path):
    path = tmp_path / "gone"
    assert refusal(path) == f"{path} cannot be read: No such file or directory."


# CSV


@pytest.mark.parametrize(
    "text",
    [
        "path,class\na.png,n1\nsub/b.png,n4\n",
        "file;size;label\r\na.png;3;n1\r\nsub/b.png;4;n4\r\n",
        "\ufeffclass_index\tfilename\n0\ta.png\n3\tsub/b.png\n",
        'class,path\n"Egyptian_cat","a.png"\n4,sub/b.png\n\n',
    ],
)
def test_csv_of_any_delimiter_and_order_is_read(tmp_path, text):
    (tmp_path / "list.csv").write_bytes(text.encode())
    assert read(tmp_path / "list.csv")[1] == [("a.png", 0), ("sub/b.png", 3)]


def test_every_name_of_a_column_is_documented():
    text = (ROOT / "docs" / "evaluate.md").read_text()
    assert [name for name in PATHS + CLASSES if f"`{name}`" not in text] == ["path", "class"]
    assert "path,class\n" in text


def test_paths_in_a_csv_may_be_absolute(tmp_path):
    (tmp_path / "list.csv").write_text("path,class\n/photos/a.png,n1\n")
    assert read(tmp_path / "list.csv")[1] == [("/photos/a.png", 0)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a.png,n1\n", "its first line must name the columns path and class"),
        (b"", "its first line must name the columns path and class"),
        (b"path,class\na.png,n1\nb.png,\n", "line 3 has no path or no class"),
        (b"path,class\na.png\n", "line 2 has no path or no class"),
        (b"path,class\n\xff\xfe,n1\n", "'utf-8' codec can't decode"),
    ],
)
def test_csv_without_paths_or_classes_is_refused(tmp_path, content, reason):
    (tmp_path / "list.csv").write_bytes(content)
    assert refusal(tmp_path / "list.csv").startswith(
        f"{tmp_path}/list.csv cannot be read: {reason}"
    )


def test_csv_without_rows_is_refused(tmp_path):
    (tmp_path / "list.csv").write_text("path,class\n")
    assert "has no classes" in refusal(tmp_path / "list.csv")
