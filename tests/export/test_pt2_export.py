import shutil

import pytest
import torch

from export.own_net import Decides, Parts, Together
from export.wrong import change_card, each_wrong, proof, settings, write
from predictor.errors import ExportError
from predictor.export import pt2
from predictor.export.options import Options
from predictor.export.subject import load


def test_exported_program_answers_as_the_server(small, tmp_path):
    module = write("pt2", small, tmp_path / "out")
    found = proof(module, small, tmp_path / "out")
    assert found.ok, found
    assert found.same == found.photos == 20
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.pt2"]


@each_wrong
def test_wrong_exported_program_is_rejected(small, tmp_path, wrong):
    module = write("pt2", small, tmp_path / "out")
    change_card(tmp_path / "out" / "model.pt2", wrong)
    found = proof(module, small, tmp_path / "out")
    assert (found.ok, found.failure) == (False, "")


def test_program_for_two_photos_only_is_rejected(small, tmp_path):
    program = torch.export.export(small.network, (small.example(2),))
    extra = {"predictor.json": small.description}
    torch.export.save(program, tmp_path / "model.pt2", extra_files=extra)
    assert "cannot run one image" in proof(pt2, small, tmp_path).failure


def test_program_for_one_photo_only_is_rejected(small, tmp_path):
    program = torch.export.export(small.network, (small.example(1),))
    extra = {"predictor.json": small.description}
    torch.export.save(program, tmp_path / "model.pt2", extra_files=extra)
    assert proof(pt2, small, tmp_path).failure


@pytest.mark.parametrize("kind", [Decides, Together])
def test_network_that_decides_by_the_photo_is_refused(tmp_path, kind):
    subject = load(settings(tmp_path, kind, "batchable = false\n" if kind is Together else ""))
    with pytest.raises(ExportError, match="own_net cannot be exported by torch.export, because"):
        pt2.write(subject, tmp_path, Options())
    assert not (tmp_path / "model.pt2").exists()


def test_only_the_logits_of_a_dict_are_in_the_program(tmp_path):
    subject = load(settings(tmp_path, Parts))
    module = write("pt2", subject, tmp_path / "out")
    assert proof(module, subject, tmp_path / "out").ok


def test_without_a_compiler_the_command_says_what_to_install(small, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExportError, match=r"g\+\+ is not on the PATH.*apt-get install g\+\+"):
        pt2.write(small, tmp_path, Options(compile=True))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("g++") is None, reason="native code is made by a compiler")
@pytest.mark.filterwarnings("ignore::Warning")
def test_native_code_answers_as_the_server_and_a_wrong_card_is_rejected(small, tmp_path):
    folder = tmp_path / "out"
    module = write("pt2", small, folder, compile=True)
    right = (folder / "model.pt2").read_bytes()
    assert (folder / "model.toml").read_text() == "trust = true\n"
    found = proof(module, small, folder, compile=True)
    assert found.ok, found
    for wrong in each_wrong.args[1]:
        (folder / "model.pt2").write_bytes(right)
        change_card(folder / "model.pt2", wrong)
        assert not proof(module, small, folder, compile=True).ok
