import re

import pytest

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


def test_folder_is_added_with_its_file_renamed(folder):
    (folder / "model.toml").write_text(f'weights = "flowers.onnx"\n{INPUT}')
    assert store("add", "flowers", ".") == 0
    version = folder / "models" / "flowers" / "1"
    assert (version / "model.onnx").is_file()
    assert 'weights = "model.onnx"' in (version / "model.toml").read_text()


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


def test_store_must_be_named(folder, monkeypatch, capsys):
    monkeypatch.delenv("PREDICTOR_STORE")
    assert store("list") == 2
    assert "--store FOLDER" in capsys.readouterr().err
