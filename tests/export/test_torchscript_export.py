import pytest
import torch

from export.own_net import Decides
from export.wrong import change_card, each_wrong, proof, settings, write
from predictor.export.subject import load
from program_files import deprecated

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def test_program_answers_as_the_server(small, tmp_path):
    module = write("torchscript", small, tmp_path / "out")
    found = proof(module, small, tmp_path / "out")
    assert found.ok, found
    assert (found.same, found.photos, found.failure) == (20, 20, "")
    assert found.classes >= 10


@each_wrong
def test_wrong_torchscript_is_rejected(small, tmp_path, wrong):
    module = write("torchscript", small, tmp_path / "out")
    change_card(tmp_path / "out" / "model.pt", wrong)
    assert not proof(module, small, tmp_path / "out").ok


@pytest.fixture(scope="module")
def decides(tmp_path_factory):
    return load(settings(tmp_path_factory.mktemp("decides"), Decides))


def test_network_that_decides_is_scripted_and_its_trace_is_rejected(decides, tmp_path):
    folder = tmp_path / "out"
    module = write("torchscript", decides, folder)
    assert proof(module, decides, folder).ok
    with deprecated():
        traced = torch.jit.trace(decides.network, decides.example(1), check_trace=False)
        extra = {"predictor.json": decides.description}
        torch.jit.save(traced, folder / "model.pt", _extra_files=extra)
    found = proof(module, decides, folder)
    assert not found.ok
