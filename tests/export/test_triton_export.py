"""Triton's repository, as far as it can be tested without Triton; the rest is in runtimes/."""

import os
from dataclasses import replace

import pytest

from export.own_net import Decides
from export.wrong import settings, write
from predictor.errors import ExportError
from predictor.export.options import Options
from predictor.export.subject import load

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture(scope="module")
def written(small, tmp_path_factory):
    """The module, and the folder of an artefact."""
    folder = tmp_path_factory.mktemp("triton") / "out"
    return write("triton", small, folder), folder


def config(folder):
    (path,) = folder.glob("models/*/config.pbtxt")
    return path.read_text()


def test_repository_has_all_that_the_model_needs(small, written):
    model = written[1] / "models" / small.name
    assert {path.name for path in model.iterdir()} == {"1", "config.pbtxt", "labels.txt"}
    names = {path.name for path in (model / "1").iterdir()}
    assert names == {"model.onnx", "model.py", "predictor", "predictor.json"}
    assert (model / "1" / "predictor.json").read_text() == small.description


def test_labels_are_in_the_order_of_the_outputs(small, written):
    lines = (written[1] / "models" / small.name / "labels.txt").read_text().splitlines()
    assert lines == [label.class_name for label in small.card.labels]


def test_repository_for_a_full_triton_has_no_python(small, tmp_path):
    write("triton", small, tmp_path / "out", platform="onnxruntime")
    assert 'platform: "onnxruntime_onnx"' in config(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out" / "models" / small.name / "1").iterdir()}
    assert names == {"model.onnx", "predictor.json"}


def test_network_of_one_photo_gets_batches_of_1(small, tmp_path):
    write("triton", replace(small, batchable=False), tmp_path / "out")
    assert "max_batch_size: 1\n" in config(tmp_path / "out")


def test_single_output_of_two_classes_is_not_named(small, tmp_path):
    """Triton would give it the first label, whatever the photo is."""
    card = replace(small.card, labels=small.card.labels[:2])
    info = replace(small.served.info, outputs=1)
    one = replace(small, card=card, served=replace(small.served, info=info))
    write("triton", one, tmp_path / "out")
    assert "dims: [ 1 ] }\ndynamic" in config(tmp_path / "out")


def test_network_that_decides_by_the_photo_is_refused(tmp_path):
    subject = load(settings(tmp_path, Decides))
    with pytest.raises(
        ExportError, match="cannot be written as ONNX, because that takes one graph"
    ):
        write("triton", subject, tmp_path / "out")


def test_missing_tritonserver_says_what_to_do(written, monkeypatch):
    monkeypatch.setenv("PATH", os.devnull)
    module, folder = written
    with pytest.raises(ExportError, match=r"not on the PATH\. docs/exports\.md .* --no-check"):
        module.runtime(folder, Options()).__enter__()
