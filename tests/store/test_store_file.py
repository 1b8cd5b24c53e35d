import os
import resource
import threading

import pytest

from predictor.errors import ReadOnlyStore, StoreError
from predictor.store import file
from predictor.store.changes import undo
from predictor.store.wanted import Route

TEXT = """\
default = "flowers"  # of requests that name none

[models.flowers]  # the shop
versions = [1, 2]
split = { 1 = 90, 2 = 10 }  # since Monday
"""


@pytest.fixture
def store(tmp_path):
    for place in ("flowers/1", "flowers/2", "flowers/10", "dogs/1", ".hidden/1", "dogs/01"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "store.toml").write_text(TEXT)
    return tmp_path


def text(store):
    return (store / "store.toml").read_text()


def test_file_says_what_is_served(store):
    wanted = file.read(store)
    assert wanted.routes == {"flowers": Route((1, 2), 2, {1: 90, 2: 10})}
    assert wanted.default == "flowers"
    assert wanted.entries["flowers", 2].folder == store / "flowers" / "2"


@pytest.mark.parametrize(
    ("versions", "served"), [('"newest"', (10,)), ('"all"', (1, 2, 10)), ("[10, 2]", (2, 10))]
)
def test_newest_is_the_largest_number(store, versions, served):
    (store / "store.toml").write_text(f"[models.flowers]\nversions = {versions}\n")
    assert file.read(store).routes["flowers"] == Route(served, 10, {})
    assert file.read(store).default == "flowers"


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("", "store.toml: models is None; it must be"),
        ("[models.flowers\n", "not valid TOML: .*line 1"),
        ("x = " + "[" * 100_000, "not valid TOML: maximum recursion"),
        ("default = 'cats'\n[models.dogs]\n", "line 1: default is 'cats'; .*: dogs"),
        ("[models.dogs]\nversions = [2]\n", "line 2: models.dogs.versions is .*which has 1"),
        ("[models.dogs]\nversions = [true]\n", "line 2: models.dogs.versions"),
        ("[models.dogs]\nversions = []\n", "line 2: models.dogs.versions"),
        ("[models.cats]\n", "models.cats.versions is 'newest'; .*which has none"),
        ("[models.dogs]\n\ndefault = 2\n", "line 3: models.dogs.default is 2; .*: 1"),
        ("[models.dogs]\nsplit = { 2 = 1 }\n", "line 2: models.dogs.split"),
        ("[models.dogs]\nsplit = { 1 = 0 }\n", "line 2: models.dogs.split"),
        ("[models.dogs]\nsplit = { 1 = nan }\n", "line 2: models.dogs.split"),
        ("[models.dogs]\nsplit = { 1 = 1000001 }\n", "above 0 and up to 1,000,000, like"),
        ("[models.dogs]\nverions = [1]\n", "line 2: models.dogs.verions .*keys are versions"),
        ("[models]\ndogs = 1\n", "models.dogs is 1; it must be a table"),
    ],
)
def test_wrong_entry_is_refused_with_file_line_and_key(store, written, reason):
    (store / "store.toml").write_text(written)
    with pytest.raises(StoreError, match=reason):
        file.read(store)


def test_missing_file_or_folder_is_a_sentence(store):
    (store / "store.toml").unlink()
    with pytest.raises(StoreError, match="store.toml does not exist"):
        file.read(store)
    with pytest.raises(StoreError, match="cannot be changed: No such file"):
        file.serve(store / "none", "flowers", "newest")


def test_edits_keep_comments_and_return_what_is_wanted(store):
    file.serve(store, "dogs", "newest")
    file.serve(store, "flowers", [10])
    file.set_default(store, "flowers", 1)
    wanted = file.set_split(store, "flowers", {10: 1, 1: 3})
    assert wanted == file.read(store)
    assert wanted.routes["flowers"] == Route((1, 2, 10), 1, {1: 3, 10: 1})
    for comment in ("# of requests that name none", "# the shop"):
        assert comment in text(store)


@pytest.mark.parametrize(
    "edit",
    [
        lambda store: file.serve(store, "flowers", [3]),
        lambda store: file.serve(store, "cats", "newest"),
        lambda store: file.unserve(store, "flowers", 10),
        lambda store: file.unserve(store, "dogs"),
        lambda store: file.set_default(store, "dogs"),
        lambda store: file.set_default(store, "flowers", 10),
        lambda store: file.set_split(store, "flowers", {3: 1}),
    ],
)
def test_refused_edit_changes_nothing(store, edit):
    with pytest.raises(StoreError):
        edit(store)
    assert text(store) == TEXT


def test_a_version_that_is_not_served_any_more_leaves_split_and_default(store):
    file.set_split(store, "flowers", {1: 90, 2: 10})
    file.set_default(store, "flowers", 1)
    assert file.unserve(store, "flowers", 1).routes["flowers"] == Route((2,), 2, {2: 10})


def test_last_model_leaves_a_valid_empty_store(store):
    wanted = file.unserve(store, "flowers")
    assert (wanted.routes, wanted.default) == ({}, None)
    assert file.read(store) == wanted
    assert file.serve(store, "dogs", [1]).default == "dogs"


def test_second_model_does_not_end_the_default(store):
    (store / "store.toml").write_text("[models.flowers]\nversions = [1]\n")
    assert file.serve(store, "dogs", "all").default == "flowers"


def test_link_stays_and_its_target_is_replaced(store, tmp_path_factory):
    target = tmp_path_factory.mktemp("elsewhere") / "served.toml"
    (store / "store.toml").rename(target)
    (store / "store.toml").symlink_to(target)
    file.serve(store, "dogs", "newest")
    assert (store / "store.toml").is_symlink()
    assert "dogs" in target.read_text()


def test_link_to_itself_is_a_sentence(store):
    (store / "store.toml").unlink()
    (store / "store.toml").symlink_to("store.toml")
    with pytest.raises(StoreError, match="store.toml cannot be read: Too many levels"):
        file.serve(store, "dogs", "newest")


def test_dotted_keys_can_be_edited(store):
    (store / "store.toml").write_text("models.flowers.versions = [1]\n")
    wanted = file.serve(store, "dogs", [1])
    assert (wanted.default, [*wanted.routes]) == ("flowers", ["flowers", "dogs"])


def test_failed_write_leaves_the_old_file(store, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="cannot be changed: No space left"):
        file.serve(store, "dogs", "newest")
    assert text(store) == TEXT
    assert not (store / ".store.toml.part").exists()


def test_full_disk_leaves_the_old_file(store):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(TEXT) // 2, limits[1]))
    try:
        with pytest.raises(StoreError, match="cannot be changed: File too large"):
            file.set_default(store, "flowers", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert text(store) == TEXT
    assert not [*store.glob("*.part"), *store.glob(".*.part")]


def test_store_without_write_access_can_be_read_but_not_changed(store, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("filelock.FileLock", refuse)
    assert file.read(store).default == "flowers"
    with pytest.raises(ReadOnlyStore):
        file.serve(store, "dogs", "newest")


def test_two_administrators_at_once_lose_no_edit(store):
    for version in range(1, 21):
        (store / "many" / str(version)).mkdir(parents=True)
    edits = [
        threading.Thread(target=file.serve, args=(store, "many", [version]))
        for version in range(1, 21)
    ]
    for edit in edits:
        edit.start()
    for edit in edits:
        edit.join()
    assert file.read(store).routes["many"].versions == tuple(range(1, 21))


def serve_dogs(store):
    before = file.current(store)
    file.serve(store, "dogs", [1])
    return "dogs", before, file.current(store)


def test_undo_of_a_new_model_leaves_other_edits(store):
    edit = serve_dogs(store)
    file.set_split(store, "flowers", {1: 1})
    assert undo(store, *edit) == "The change is undone."
    assert file.read(store).routes == {"flowers": Route((1, 2), 2, {1: 1})}


def test_undo_of_the_first_model_leaves_a_valid_store(store):
    file.unserve(store, "flowers")
    edit = serve_dogs(store)
    file.serve(store, "flowers", [1])
    assert undo(store, *edit) == "The change is undone."
    assert file.read(store).default == "flowers"


def test_undo_in_a_broken_store_says_so(store):
    (store / "store.toml").write_text("[models.flowers]\n")
    edit = serve_dogs(store)
    file.set_default(store, "dogs")
    assert undo(store, *edit) == "The change is undone."
    (store / "store.toml").write_text("[models.fl")
    assert "The change is not undone: " in undo(store, *edit)
