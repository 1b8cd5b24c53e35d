"""ExecuTorch: the program in its own runtime."""

import json
import warnings
from dataclasses import replace

import pytest
import torch

from export.own_net import Decides
from export.wrong import each_wrong, photos, proof, settings, write
from photographs import CLASSES
from predictor.errors import ExportError
from predictor.export.subject import load
from predictor.models.card import Card

with warnings.catch_warnings():  # of the packages that it imports
    warnings.simplefilter("ignore")
    Runtime = pytest.importorskip(
        "executorch.runtime", reason="executorch is not installed: make exports does that"
    ).Runtime

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # of the exporter, about torch and itself
]


@pytest.fixture(scope="module")
def written(small, tmp_path_factory):
    """The module, and the folder of a right artefact."""
    folder = tmp_path_factory.mktemp("executorch") / "out"
    return write("executorch", small, folder), folder


def test_program_answers_as_the_server(small, written):
    module, folder = written
    found = proof(module, small, folder)
    assert found.ok, found
    assert (found.same, found.photos, found.failure) == (20, 20, "")
    assert found.classes >= CLASSES
    assert found.difference <= 1e-4


@each_wrong
def test_wrong_executorch_is_rejected(small, tmp_path, wrong):
    card = Card.from_json(wrong(small.card.as_json()))
    module = write("executorch", replace(small, card=card), tmp_path / "out")
    assert not proof(module, small, tmp_path / "out").ok


def test_description_is_in_the_program_and_beside_it(small, written):
    _, folder = written
    program = Runtime.get().load_program(folder / "model.pte")
    (text,) = program.load_method("predictor").execute([])
    assert json.loads(text) == small.card.as_json()
    assert json.loads((folder / "predictor.json").read_text()) == small.card.as_json()


@pytest.mark.parametrize("count", range(1, 9))
def test_program_takes_batches_of_1_to_8(small, written, count):
    module, folder = written
    data = [content for _, content in photos()[:count]]
    with module.runtime(folder, None) as run:
        assert run(data).logits == pytest.approx(small.answers(data).logits, abs=1e-4)


def test_convolutions_are_xnnpacks(written):
    """Without the delegate, ExecuTorch would run them itself, and many times as slowly."""
    content = (written[1] / "model.pte").read_bytes()
    assert b"XnnpackBackend" in content
    assert b"aten::convolution" not in content


def test_files_for_phones_are_beside_the_program(written):
    names = {path.name for path in (written[1] / "phones").iterdir()}
    assert names == {"Prepare.java", "Classify.java", "Classify.swift"}
    for name in ("Classify.java", "Classify.swift"):
        text = (written[1] / "phones" / name).read_text()
        assert text.startswith("// NOT BUILT OR RUN WHERE IT WAS WRITTEN"), name


def test_network_that_decides_by_the_photo_is_refused(tmp_path):
    subject = load(settings(tmp_path, Decides))
    with pytest.raises(ExportError, match="of the same steps for every photo") as refused:
        write("executorch", subject, tmp_path / "out")
    assert "predictor export torchscript" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert [*(tmp_path / "out").iterdir()] == []


def test_network_of_one_photo_gets_a_program_of_batch_1(small, tmp_path):
    folder = tmp_path / "out"
    module = write("executorch", replace(small, batchable=False), folder)
    with module.runtime(folder, None) as run, pytest.raises(RuntimeError):
        run([content for _, content in photos()[:2]])
    assert proof(module, replace(small, batchable=False), folder).ok


def test_operator_that_executorch_lacks_is_named(small, tmp_path):
    class Odd(torch.nn.Module):
        def forward(self, images):
            return torch.linalg.svdvals(images[:, 0])

    with pytest.raises(ExportError, match="cannot be exported for ExecuTorch"):
        write("executorch", replace(small, network=Odd()), tmp_path / "out")
