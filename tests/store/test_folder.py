"""What a process begins with: the default model of a store, and what other processes serve."""

import subprocess
import sys

import pytest

from paths import ROOT
from predictor.errors import StoreError
from predictor.settings import Settings
from predictor.store import file
from predictor.store.folder import Reader, default_model


@pytest.fixture
def store(tmp_path):
    for place in ("flowers/1", "flowers/2", "dogs/1"):
        (tmp_path / place).mkdir(parents=True)
    for name in ("flowers", "dogs"):
        file.serve(tmp_path, name, "all")
    return tmp_path


def test_without_a_store_it_is_the_model_of_the_settings():
    settings = Settings(model="resnet18")
    assert default_model(settings) is settings


def test_it_is_the_default_version_of_the_default_model(store):
    file.set_default(store, "flowers", 1)
    found = default_model(Settings(store=str(store)))
    assert (found.model, found.served_name) == (str(store / "flowers" / "1"), "flowers")
    assert found.store == "none"


def test_without_a_default_model_a_command_says_what_to_set(store):
    text = (store / "store.toml").read_text().replace('default = "flowers"\n', "")
    (store / "store.toml").write_text(text)
    with pytest.raises(StoreError, match="has no default"):
        default_model(Settings(store=str(store)))
    done = subprocess.run(
        [sys.executable, "-m", "predictor", "classify", "docs/phone.png"], cwd=ROOT, text=True,
        env={"PREDICTOR_STORE": str(store), "PATH": ""}, capture_output=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, "has no default" in done.stderr) == (2, True), done.stderr


def test_a_process_begins_with_what_the_others_serve_if_the_file_is_damaged(store, tmp_path):
    kept = tmp_path / "kept.json"
    file.set_split(store, "flowers", {1: 1, 2: 2.5})
    wanted = Reader(store, kept)()
    (store / "store.toml").write_text("[models.fl")
    later = Reader(store, kept)
    assert later() == wanted
    with pytest.raises(StoreError, match="not valid TOML"):  # from then on it is said
        later()


def test_a_process_begins_with_what_is_left_if_a_folder_is_missing(store, tmp_path):
    kept = tmp_path / "kept.json"
    wanted = Reader(store, kept)()
    (store / "dogs/1").rmdir()
    (store / "dogs").rmdir()
    began = Reader(store, kept)()
    assert began == wanted
    assert began.entries["dogs", 1].folder == store / "dogs/1"


def test_the_first_process_of_a_server_needs_a_good_file(store, tmp_path):
    (store / "store.toml").write_text("[models.fl")
    with pytest.raises(StoreError, match="not valid TOML"):
        Reader(store, tmp_path / "kept.json")()
