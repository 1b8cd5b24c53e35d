import re

import pytest
import torch

from onnx_files import write
from paths import ROOT
from predictor.cli import main

INPUT = "[input]\nsize = 64\nresize = 64\nmean = 0\nstd = 1\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREDICTOR_STORE", "models")
    write(tmp_path / "flowers.onnx")
    (tmp_path / "model.toml").write_text(INPUT)
    return tmp_path


def store(*arguments):
    return main(["store", *arguments])


def test_example_of_the_documents_works(folder, monkeypatch, capsys):
    (example,) = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "store.md").read_text(), re.DOTALL)
    for line in example.splitlines()[1:]:
        assert main(line.split()[1:]) == 0
    assert "flowers                   1        served" in capsys.readouterr().out
    version = folder / "models" / "flowers" / "1"
    assert sorted(path.name for path in version.iterdir()) == ["model.onnx", "model.toml"]


def test_advice_for_a_store_names_keys_of_model_toml(folder, capsys):
    torch.save({"fc.weight": torch.zeros(3, 2)}, folder / "own.pth")
    assert store("add", "flowers", "own.pth") == 2
    said = capsys.readouterr().err
    assert "Set source in model.toml to their network, such as resnet18 or net.py:build" in said
    assert "and weights in model.toml = " in said
    assert "PREDICTOR_" not in said


def test_folder_is_added_with_its_file_renamed(folder):
    (folder / "model.toml").write_text(f'weights = "flowers.onnx"\n{INPUT}')
    assert store("add", "flowers", ".") == 0
    version = folder / "models" / "flowers" / "1"
    assert (version / "model.onnx").is_file()
    assert 'weights = "model.onnx"' in (version / "model.toml").read_text()


def test_file_is_added_with_its_labels_and_its_data(folder):
    (folder / "model.toml").write_text(f'labels = "labels.txt"\n{INPUT}')
    (folder / "labels.txt").write_text("red\ngreen\nblue\n")
    (folder / "flowers.onnx.data").write_bytes(b"weights")
    (folder / "notes.txt").touch()
    assert store("add", "flowers", "flowers.onnx") == 0
    added = sorted(path.name for path in (folder / "models" / "flowers" / "1").iterdir())
    assert added == ["flowers.onnx.data", "labels.txt", "model.onnx", "model.toml"]


def test_refusal_names_the_file_that_was_given(folder, capsys):
    (folder / "flowers.onnx").write_bytes((folder / "flowers.onnx").read_bytes()[:-40])
    for given, words in (("flowers.onnx", "add the folder ."), (".", "flowers.onnx")):
        (folder / "model.toml").write_text(f'weights = "flowers.onnx"\n{INPUT}')
        assert store("add", "flowers", given) == 2
        error = capsys.readouterr().err
        assert words in error
        assert "model.onnx" not in error


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        ("", "is not described"),
        (f'name = "dogs"\n{INPUT}', "Remove the key, or write 'flowers'"),
        (f"version = 2\n{INPUT}", "Remove the key, or write '1'"),
    ],
)
def test_refused_model_leaves_nothing(folder, capsys, toml, reason):
    (folder / "model.toml").write_text(toml)
    assert store("add", "flowers", "flowers.onnx") == 2
    assert reason in capsys.readouterr().err
    assert not (folder / "models" / "flowers").exists()


def test_only_a_version_that_is_not_served_is_removed(folder, capsys):
    for _ in range(2):
        assert store("add", "flowers", "flowers.onnx") == 0
    assert store("serve", "flowers", "1", "2") == 0
    assert store("remove", "flowers", "1") == 2
    assert "predictor store unserve flowers 1" in capsys.readouterr().err
    assert store("unserve", "flowers", "1") == 0
    assert store("remove", "flowers", "1") == 0
    assert [path.name for path in (folder / "models" / "flowers").iterdir()] == ["2"]


@pytest.mark.parametrize("version", ["0", "-1", "1" + 18 * "0"])
def test_version_to_add_is_a_number_from_1(folder, capsys, version):
    assert store("add", "flowers", "flowers.onnx", "--version", version) == 2
    assert "a number from 1 with at most 18 digits" in capsys.readouterr().err
    assert not (folder / "models" / "flowers").exists()


def test_versions_beside_all_are_refused(folder, capsys):
    assert store("serve", "flowers", "1", "--all") == 2
    assert "Name versions or give --all, not both." in capsys.readouterr().err


def test_split_that_names_a_version_twice_is_refused(folder, capsys):
    assert store("add", "flowers", "flowers.onnx") == 0
    assert store("serve", "flowers") == 0
    assert store("split", "flowers", "1=1", "01=2") == 2
    assert "A version is named twice." in capsys.readouterr().err
    assert "split" not in (folder / "models" / "store.toml").read_text()


def test_store_must_be_named(folder, monkeypatch, capsys):
    monkeypatch.delenv("PREDICTOR_STORE")
    assert store("list") == 2
    assert "--store FOLDER" in capsys.readouterr().err
