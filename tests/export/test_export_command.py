import json

import pytest
import torch

import predictor
from export import wrong
from export.own_net import Decides
from export.wrong import photos, settings
from predictor.cli import main
from predictor.errors import ExportError, PredictorError
from predictor.export import FORMATS, pt2, running, torchscript
from predictor.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture
def model(tmp_path, monkeypatch):
    """The settings of a small network in the environment, in a folder with photos."""
    monkeypatch.chdir(tmp_path)
    return use(monkeypatch, settings(tmp_path))


def use(monkeypatch, own):
    for name in ("model", "weights", "labels", "input_size", "resize", "mean", "std"):
        monkeypatch.setenv(f"PREDICTOR_{name.upper()}", getattr(own, name))
    return own


@pytest.fixture
def folder(tmp_path):
    """Photos, in a sub-folder for each of two classes."""
    for at, (name, data) in enumerate(photos()):
        path = tmp_path / "photos" / "ab"[at % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "photos" / "labels.csv").write_text("not a photo")
    return tmp_path / "photos"


def test_command_writes_the_artefact_and_prints_the_proof(model, folder, capsys):
    assert main(["export", "torchscript", "--out", "ts", "--check", str(folder)]) == 0
    _, row = capsys.readouterr().out.strip().splitlines()
    assert "torchscript" in row
    assert "20/20" in row
    assert row.endswith("made by tracing")
    files = {path.name: path for path in (folder.parent / "ts").iterdir()}
    assert files.keys() == {"README.md", "export.json", "model.pt"}
    assert "PREDICTOR_MODEL=model.pt" in files["README.md"].read_text()
    said = json.loads(files["export.json"].read_text())
    assert said["proof"]["ok"] is True
    assert said["proof"]["photos"] == 20
    assert said["files"]["model.pt"]["sha256"] == running._sha256(files["model.pt"])
    assert said["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert said["model"]["source"] == "own_net.py:Small"  # without the folder


@pytest.fixture
def shifted(monkeypatch):
    """Every TorchScript file has labels that are shifted by one."""
    write = torchscript.write

    def write_wrong(subject, folder, options):
        notes = write(subject, folder, options)
        wrong.change_card(folder / "model.pt", wrong.WRONG["labels shifted by one"])
        return notes

    monkeypatch.setattr(torchscript, "write", write_wrong)


@pytest.mark.usefixtures("shifted")
def test_command_fails_if_an_answer_differs(model, folder, capsys):
    assert main(["export", "torchscript", "--out", "ts", "--check", str(folder)]) == 1
    said = capsys.readouterr()
    assert "0/20" in said.out
    assert "does not answer as the server does: 0 of 20 photos have the same class" in said.err
    proof = json.loads((folder.parent / "ts" / "export.json").read_text())["proof"]
    assert (proof["ok"], len(proof["differing"])) == (False, 20)


@pytest.mark.usefixtures("shifted")
def test_function_raises_if_an_answer_differs(model, folder):
    with pytest.raises(PredictorError, match="0 of 20 photos"):
        predictor.export("torchscript", out="ts", check=[folder], settings=model)


def test_function_returns_the_proof(model):
    exported = predictor.export("torchscript", settings=model, frozen=True)
    assert exported.folder.name == "own_net-torchscript"
    assert exported.proof.ok
    assert exported.proof.photos == 3  # the samples
    with pytest.raises(ExportError, match="own_net-torchscript exists. Remove it"):
        predictor.export("torchscript", settings=model)


def test_without_a_check_the_table_says_so(model, capsys):
    assert main(["export", "torchscript", "--no-check"]) == 0
    assert "not checked" in capsys.readouterr().out


def test_all_formats_are_in_one_table_also_those_that_cannot(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    use(monkeypatch, settings(tmp_path, Decides))
    monkeypatch.setattr(running, "FORMATS", few := {name: FORMATS[name] for name in FEW})
    monkeypatch.setattr("predictor.cli.export.FORMATS", few)
    assert main(["export", "--all", "--out", "all", "--frozen"]) == 0
    _, script, exported = capsys.readouterr().out.strip().splitlines()
    assert "3/3" in script
    assert "own_net cannot be exported by torch.export, because that takes one graph" in exported
    assert [path.name for path in (tmp_path / "all").iterdir()] == ["torchscript"]
    assert json.loads((tmp_path / "all/torchscript/export.json").read_text())["options"]["frozen"]


FEW = ("torchscript", "pt2")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["torchscript", "--check", "none.jpg"], "none.jpg cannot be read: No such file"),
        (["torchscript", "--check", "."], "has no photos"),
        (["torchscript", "--check", "net.pth"], "net.pth: The file's format is ZIP archive"),
        (["pt2", "--lite"], "--lite is an option of torchscript, not of pt2."),
        (["torchscript", "--out", "."], ". exists. Remove it"),
        ([], "Name one format, or --all."),
        (["pt2", "--all"], "Name one format, or --all."),
    ],
)
def test_failure_is_a_sentence_and_status_2(model, tmp_path, capsys, arguments, reason):
    before = sorted(tmp_path.iterdir())
    assert main(["export", *arguments]) == 2
    assert reason in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_program_is_refused_in_a_sentence(model, tmp_path, capsys, monkeypatch):
    predictor.export("pt2", out=tmp_path / "a", settings=model, check=())
    with pytest.raises(ExportError, match=r"model.pt2 is a program .* only a network can be"):
        predictor.export("torchscript", settings=Settings(model=str(tmp_path / "a" / "model.pt2")))


def test_failure_while_writing_leaves_nothing(model, tmp_path, monkeypatch):
    def write(subject, folder, options):
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    monkeypatch.setattr(pt2, "write", write)
    with pytest.raises(KeyboardInterrupt):
        predictor.export("pt2", out=tmp_path / "a", settings=model)
    assert not (tmp_path / "a").exists()


def test_too_much_lost_top_1_is_status_3(model, monkeypatch):
    monkeypatch.setattr(torchscript, "write", lambda *_: {"lost %": 2.0})
    run = ["export", "torchscript", "--no-check", "--out"]
    assert main([*run, "a"]) == 3
    monkeypatch.setattr(torchscript, "write", lambda *_: {"lost %": 0.9})
    assert main([*run, "b"]) == 0


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(running.FORMATS, "executorch_", "a format whose module is missing")
    with pytest.raises(ExportError, match="executorch_ is not installed. docs/exports.md"):
        running.module_of("executorch_")
