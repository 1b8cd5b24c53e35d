import io
import os
import sys

import pytest

from heic import HEADER
from pictures import picture
from predictor.images.files import Finder, paths_in

APPLE_DOUBLE = bytes.fromhex("0005160700020000") + bytes(100)


@pytest.fixture
def put(tmp_path):
    """Write a file below a folder, by default a photo; return the folder."""

    def write(name, content=None):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture("red") if content is None else content)
        return tmp_path

    return write


def found(*paths):
    """What is found, below the first path, and the line about the rest."""
    finder = Finder()
    names = [name.removeprefix(f"{paths[0]}/") for name in finder.find(map(str, paths))]
    return names, finder.summary()


def test_files_of_a_folder_are_sorted_before_its_subfolders(put):
    for name in ("b.png", "sub/d.png", "a.PNG", "another/c.png"):
        folder = put(name)
    assert found(folder) == (["a.PNG", "b.png", "another/c.png", "sub/d.png"], "")


def test_hidden_files_and_folders_are_left_out_and_counted(put):
    put("._a.jpg", APPLE_DOUBLE)
    put(".ipynb_checkpoints/a-checkpoint.png")
    put(".DS_Store", b"")
    folder = put("a.png")
    assert found(folder) == (["a.png"], "3 files left out: 3 hidden")


def test_hidden_path_that_is_named_is_read(put):
    folder = put(".hidden/a.png")
    assert found(folder / ".hidden") == (["a.png"], "")
    assert found(folder / ".hidden" / "a.png")[0] == [str(folder / ".hidden" / "a.png")]


@pytest.mark.parametrize("name", ["a", "a.MPO", "a.jpg_large", "a.jpeg~", "a.1", "a.txt"])
def test_other_endings_are_read_if_the_content_is_an_image(put, name):
    assert found(put(name)) == ([name], "")


def test_what_is_no_image_is_counted_by_ending(put):
    for name in ("a.txt", "b.TXT", "c.xml", "README"):
        folder = put(name, b"text")
    assert found(folder) == ([], "4 files left out: 2 .txt, 1 without ending, 1 .xml")


def test_formats_that_are_not_read_are_left_out(put, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    put("IMG_1.MOV", b"\0\0\0\x14ftypqt  " + bytes(99))
    put("a.pdf", b"%PDF-1.7")
    folder = put("IMG_1.HEIC", HEADER + bytes(99))
    assert found(folder) == ([], "3 files left out: 1 .heic, 1 .mov, 1 .pdf")


def test_heic_without_ending_is_read_if_the_library_is_there(put):
    pytest.importorskip("pillow_heif")
    assert found(put("a", HEADER + bytes(99))) == (["a"], "")


def test_damaged_image_with_an_images_ending_is_tried(put):
    assert found(put("a.jpg", b"text")) == (["a.jpg"], "")


def test_linked_folders_are_read_once_even_in_a_cycle(put, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "e.png").write_bytes(picture("red"))
    folder = put("sub/a.png")
    (folder / "link").symlink_to(elsewhere)
    (folder / "link2").symlink_to(elsewhere)
    (folder / "sub" / "up").symlink_to(folder)
    (elsewhere / "itself").symlink_to(elsewhere)
    assert found(folder) == (["link/e.png", "sub/a.png"], "")
    assert found(folder, folder / "sub", folder) == (["link/e.png", "sub/a.png"], "")


def test_linked_files_are_read_and_broken_links_counted(put):
    folder = put("a.png")
    (folder / "b.png").symlink_to(folder / "a.png")
    (folder / "c.png").symlink_to(folder / "gone.png")
    assert found(folder) == (["a.png", "b.png"], "1 file left out: 1 broken link")


def test_pipe_in_a_folder_is_left_out(put):
    folder = put("a.png")
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "pipe.jpg")
    assert found(folder) == (["a.png"], "2 files left out: 2 no regular file")


@pytest.mark.parametrize("name", ["closed", "closed/odd"])
def test_unreadable_folder_or_file_is_tried_so_that_its_error_is_shown(put, monkeypatch, name):
    folder = put("closed/odd", b"x")

    def forbidden(path, *_args):
        if str(path) == str(folder / name):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *_args)

    target = ("os.scandir", os.scandir) if name == "closed" else ("builtins.open", open)
    real = target[1]
    monkeypatch.setattr(target[0], forbidden)
    assert found(folder)[0] == [name]


def test_file_of_paths_has_one_per_line(tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_bytes(b"\xef\xbb\xbfa b.jpg\r\n\n#c.jpg\n\xff.jpg\nlast")
    assert list(paths_in(str(listed))) == ["a b.jpg", "#c.jpg", os.fsdecode(b"\xff.jpg"), "last"]


def test_dash_reads_the_paths_from_stdin(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.jpg\nb.jpg\n")))
    assert list(paths_in("-")) == ["a.jpg", "b.jpg"]


def test_list_that_cannot_be_read_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ValueError, match="--files-from .*none.txt cannot be read: No such file"):
        list(paths_in(str(tmp_path / "none.txt")))
