import sys

import pytest
import torch
import torchvision

from predictor.cli import main


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    torch.save(torchvision.models.squeezenet1_1(num_classes=3), "net.pth")
    return tmp_path / "net.pth"


def test_command_says_what_it_executes_and_how_to_serve_the_result(model, capsys):
    assert main(["convert", "net.pth"]) == 0
    said = capsys.readouterr()
    assert said.err == "net.pth is executed now. It can run any program.\n"
    assert (
        said.out == "net answers as net.pth does.\nServe it: PREDICTOR_MODEL=net predictor serve\n"
    )
    assert sorted(path.name for path in (model.parent / "net").iterdir()) == [
        "model.safetensors",
        "model.toml",
    ]


def test_folder_can_be_chosen(model):
    assert main(["convert", "net.pth", "--output", "other/folder"]) == 0
    assert (model.parent / "other" / "folder" / "model.toml").is_file()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["none.pth"], "none.pth does not exist."),
        (["net.pth", "--output", "."], ". exists. Remove it, or name another folder"),
        (["note.txt"], "note.txt cannot be loaded: "),
    ],
)
def test_failure_is_a_sentence_and_status_2(model, capsys, arguments, reason):
    (model.parent / "note.txt").write_text("a note")
    assert main(["convert", *arguments]) == 2
    assert reason in capsys.readouterr().err
    assert not (model.parent / "note").exists()
