import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest

from export.own_net import Decides, Halves
from export.wrong import WRONG, each_wrong, photos, proof, settings, write
from paths import ROOT
from photographs import SIZES
from predictor.errors import ExportError
from predictor.export import onnx as onnx_format
from predictor.export.carried import prepare
from predictor.export.options import Options
from predictor.export.subject import load
from predictor.models.loading import load_model
from predictor.settings import Settings

FILE = onnx_format.FILE
KINDS = {
    "float32": {},
    "uint8": {"input": "uint8"},
    "static": {"static": True},
    "uint8, opset 17": {"input": "uint8", "opset": 17},
    "static, opset 11": {"static": True, "opset": 11},
    "opset 22": {"opset": 22},
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A network that both exporters can write; its photographs fall into at least ten classes."""
    return load(settings(tmp_path_factory.mktemp("halves"), Halves))


@pytest.fixture(scope="module", params=KINDS.values(), ids=list(KINDS))
def written(request, small, tmp_path_factory):
    """The small network as an ONNX file of each kind: its options and its folder."""
    folder = tmp_path_factory.mktemp("onnx") / "out"
    write("onnx", small, folder, **request.param)
    return request.param, folder


def change_card(path, wrong):
    """Replace the card in the metadata by a wrong one."""
    model = onnx.load(path, load_external_data=False)
    (said,) = [one for one in model.metadata_props if one.key == "predictor"]
    said.value = json.dumps(wrong(json.loads(said.value)))
    onnx.save(model, path)


def test_graph_answers_as_the_server(small, written):
    options, folder = written
    found = proof(onnx_format, small, folder, **options)
    assert found.ok, found
    assert (found.same, found.photos) == (20, 20)
    assert found.classes >= 10
    assert found.difference < 1e-5


def test_graph_has_the_asked_input_and_opset(written):
    options, folder = written
    model = onnx.load(folder / FILE)
    (image,) = model.graph.input
    sides = [side.dim_value or side.dim_param for side in image.type.tensor_type.shape.dim]
    one = options.get("static")
    last = [64, 64, 3] if options.get("input") == "uint8" else [3, 64, 64]
    assert sides == [1 if one else "batch", *last]
    kind = onnx.TensorProto.UINT8 if options.get("input") == "uint8" else onnx.TensorProto.FLOAT
    assert image.type.tensor_type.elem_type == kind
    assert [one.domain for one in model.opset_import] == [""]
    assert options.get("opset") in (None, model.opset_import[0].version)


def test_photos_are_served_in_batches_of_any_size(small, written):
    options, folder = written
    model = load_model(Settings(model=str(folder / FILE)), 2)
    data = [photo for _, photo in photos()]
    expected, pixels = small.answers(data).logits, [prepare(photo, model.card) for photo in data]
    most = min(model.scorer.max_batch_size, 1) if options.get("static") else max(SIZES)
    order = np.arange(sum(SIZES)) % len(data)
    for chosen in np.split(order, np.cumsum(SIZES)[:-1]):
        for part in np.split(chosen, range(most, len(chosen), most)):
            found = model.scorer.logits([pixels[index] for index in part], 1)
            np.testing.assert_allclose(found, expected[part], 0, 1e-4 * np.abs(expected).max())
    assert model.labels == small.card.labels
    assert (model.info.name, model.info.precision) == (small.name, "float32")


@each_wrong
@pytest.mark.parametrize("written", [KINDS["float32"]], indirect=True, ids=["float32"])
def test_wrong_onnx_is_rejected(small, written, tmp_path, wrong):
    shutil.copy(written[1] / FILE, tmp_path)
    change_card(tmp_path / FILE, wrong)
    assert not proof(onnx_format, small, tmp_path).ok


WRONG_INSIDE = {
    "mean off by 0.01": {"mean": (0.41, 0.51, 0.61)},
    "no normalisation": {"mean": (0.0,) * 3, "std": (1.0,) * 3, "scale": "0..255"},
}


@pytest.mark.parametrize("values", WRONG_INSIDE.values(), ids=list(WRONG_INSIDE))
def test_graph_that_normalises_wrongly_is_rejected(small, tmp_path, values):
    input = replace(small.card.input, **values)
    wrong = replace(small, card=replace(small.card, input=input))
    write("onnx", wrong, tmp_path / "out", input="uint8")
    assert not proof(onnx_format, small, tmp_path / "out", input="uint8").ok


def test_graph_that_normalises_lets_no_description_do_it_again(small, tmp_path):
    write("onnx", small, tmp_path / "out", input="uint8")
    change_card(tmp_path / "out" / FILE, WRONG["mean off by 0.01"])
    found = proof(onnx_format, small, tmp_path / "out", input="uint8")
    assert "Remove mean and std from the description" in found.failure


def test_network_that_decides_is_refused_before_it_is_written(tmp_path):
    (tmp_path / "net").mkdir()
    decides = load(settings(tmp_path / "net", Decides))
    for options in ({}, {"static": True}, {"static": True, "opset": 13}):
        (tmp_path / "out").mkdir()
        with pytest.raises(
            ExportError, match="cannot be written as ONNX.*one graph of the same steps"
        ):
            onnx_format.write(decides, tmp_path / "out", Options(**options))
        assert not [*(tmp_path / "out").iterdir()]
        (tmp_path / "out").rmdir()


REFUSED = {
    "opset 99": ({"opset": 99}, "cannot be written with opset 99"),
    "opset 3": ({"opset": 3}, "cannot be written as ONNX"),
    "int8 alone": ({"int8": True}, "--int8 needs --calibrate PHOTOS"),
    "int8, opset 12": ({"int8": True, "calibrate": ("a",), "opset": 12}, "--int8 needs opset 13"),
    "calibrate alone": ({"calibrate": ("a",)}, "--calibrate and --judge are for"),
    "judge alone": ({"judge": "a"}, "--calibrate and --judge are for"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=list(REFUSED))
def test_unfit_options_are_refused_in_a_sentence(small, tmp_path, options, message):
    with pytest.raises(ExportError, match=message):
        onnx_format.write(small, tmp_path, Options(**options))


def test_network_that_may_not_run_batches_gets_a_graph_for_one_photo(small, tmp_path):
    onnx_format.write(replace(small, batchable=False), tmp_path, Options())
    assert load_model(Settings(model=str(tmp_path / FILE)), 2).scorer.max_batch_size == 1


def test_large_weights_lie_in_a_second_file(small, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_format, "LARGE", 1000)
    write("onnx", small, tmp_path / "out")
    graph, weights = (tmp_path / "out" / name for name in (FILE, f"{FILE}.data"))
    assert graph.stat().st_size < 20_000 < weights.stat().st_size
    assert proof(onnx_format, small, tmp_path / "out").ok


def test_graph_is_served_without_torch(small, tmp_path):
    write("onnx", small, tmp_path / "out")
    (tmp_path / "photo.png").write_bytes(photos()[3][1])
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from predictor.cli import main; sys.exit(main([sys.argv[1], '--format', 'jsonl']))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "photo.png")], cwd=ROOT, text=True,
        capture_output=True, env=os.environ | {"PREDICTOR_MODEL": str(tmp_path / "out" / FILE)},
    )  # fmt: skip
    label = small.answers([photos()[3][1]]).best[0]
    assert label.class_name in run.stdout, run.stderr
