"""What a process begins with: the default model of a store, and what other processes serve."""

import subprocess
import sys

import pytest

from models.own_code import NET, TRANSFORM
from paths import ROOT
from predictor.engine.classifier import Classifier
from predictor.errors import StartError, StoreError
from predictor.settings import Settings
from predictor.store import file
from predictor.store.folder import Reader, default_model, store_for
from predictor.store.wanted import Entry
from toy import toy_model
from waiting import wait_until


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


@pytest.mark.parametrize(
    ("place", "reason"),
    [("", "is not valid TOML"), ("none", "does not exist"), ("store.toml", "Not a directory")],
)
def test_store_that_cannot_be_read_at_the_start_is_logged_once(store, caplog, place, reason):
    (store / "store.toml").write_text("[models.fl")
    found = store_for(Settings(store=str(store / place)))
    found.start()
    with pytest.raises(StartError, match=reason):
        found.loading.result(60)
    found.watch.close()
    found.watch.poll()
    found._tasks.shutdown()  # after all that it has begun
    (line,) = caplog.messages
    assert (reason in line, "What is served" in line) == (True, False)


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
    assert began.routes == wanted.routes
    assert began.entries["dogs", 1] == Entry("dogs", 1, store / "dogs/1", "")
    assert began.entries["flowers", 1] == wanted.entries["flowers", 1]


def test_a_missing_folder_is_one_sentence_and_served_when_it_is_back(store, tmp_path, caplog):
    (tmp_path / "followers").mkdir()
    for version in ("dogs/1", "flowers/1", "flowers/2"):
        (store / version / "model.onnx").touch()
    settings = Settings(store=str(store), shared_folder=tmp_path)
    store_for(settings)._read()  # keeps the copy
    (store / "dogs/1").rename(tmp_path / "away")
    found = store_for(settings)
    make = found._make
    found._make = lambda entry: Classifier(make(entry).settings, lambda *_: toy_model())
    found.start()
    found.loading.result(60)
    missing = f"The model cannot be served. dogs/1: there is no folder {store / 'dogs/1'}."
    assert caplog.messages.count(missing) == 1
    assert "Accepted are" not in caplog.text
    (tmp_path / "away").rename(store / "dogs/1")  # the same files as before
    wait_until(lambda: "dogs" in found.names())
    found.watch.close()
    found.close()


def test_message_of_a_load_advises_model_toml_and_no_setting(tmp_path):
    folder = tmp_path / "flowers" / "1"
    folder.mkdir(parents=True)
    file.serve(tmp_path, "flowers", "all")
    (folder / "net.py").write_text(f"{NET}{TRANSFORM}\nlabels = ['cat', 'dog']\n")
    (folder / "model.toml").write_text('source = "net.py:build"\nweights = "random"\n')
    found = store_for(Settings(store=str(tmp_path)))
    found.start()
    said = "has 2. Set labels in model.toml to the labels of these weights"
    with pytest.raises(StartError, match=said):
        found.loading.result(60)
    found.watch.close()


def test_the_first_process_of_a_server_needs_a_good_file(store, tmp_path):
    (store / "store.toml").write_text("[models.fl")
    with pytest.raises(StoreError, match="not valid TOML"):
        Reader(store, tmp_path / "kept.json")()
