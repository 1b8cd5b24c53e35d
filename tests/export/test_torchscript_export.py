import pytest
import torch

from export.own_net import Decides, Parts, Together, Unscriptable
from export.wrong import change_card, each_wrong, proof, settings, write
from predictor.errors import ExportError
from predictor.export import torchscript
from predictor.export.options import Options
from predictor.export.subject import load
from program_files import deprecated

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.mark.parametrize("options", [{}, {"frozen": True}, {"lite": True}], ids=str)
def test_program_answers_as_the_server(small, tmp_path, options):
    module = write("torchscript", small, tmp_path / "out", **options)
    found = proof(module, small, tmp_path / "out", **options)
    assert found.ok, found
    assert (found.same, found.photos, found.failure) == (20, 20, "")
    assert found.classes >= 10


@each_wrong
@pytest.mark.parametrize("lite", [False, True])
def test_wrong_torchscript_is_rejected(small, tmp_path, wrong, lite):
    module = write("torchscript", small, tmp_path / "out", lite=lite)
    change_card(tmp_path / "out" / ("model.ptl" if lite else "model.pt"), wrong)
    found = proof(module, small, tmp_path / "out", lite=lite)
    assert (found.ok, found.failure) == (False, "")


def of(kind, factory):
    return load(settings(factory.mktemp("model"), kind))


@pytest.fixture(scope="module")
def decides(tmp_path_factory):
    return of(Decides, tmp_path_factory)


def save_traced(subject, folder):
    """Trace a network whatever it decides, as many do."""
    folder.mkdir(exist_ok=True)
    with deprecated():
        traced = torch.jit.trace(subject.network, subject.example(2), check_trace=False)
        torch.jit.save(traced, folder / "model.pt", {"predictor.json": subject.description})


def test_network_that_decides_is_scripted(decides, tmp_path):
    assert torchscript.write(decides, tmp_path, Options()) == {"made by": "scripting"}
    assert proof(torchscript, decides, tmp_path).ok


def test_trace_of_a_network_that_decides_is_rejected(decides, tmp_path):
    save_traced(decides, tmp_path)
    assert not proof(torchscript, decides, tmp_path).ok


def test_network_for_one_photo_at_a_time_says_so_beside_the_program(tmp_path):
    subject = load(settings(tmp_path, Together, "batchable = false\n"))
    folder = tmp_path / "out"
    module = write("torchscript", subject, folder)
    assert (folder / "model.toml").read_text() == "batchable = false\n"
    assert proof(module, subject, folder).ok


def test_network_that_can_be_neither_traced_nor_scripted_is_refused(tmp_path):
    subject = load(settings(tmp_path, Unscriptable))
    with pytest.raises(ExportError, match=r"own_net\.py, line \d+ decides by the photo.* scripted"):
        torchscript.write(subject, tmp_path, Options())


def test_only_the_logits_of_a_dict_are_exported(tmp_path):
    subject = load(settings(tmp_path, Parts))
    module = write("torchscript", subject, tmp_path / "out")
    assert proof(module, subject, tmp_path / "out").ok
