import csv
import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from export.own_net import Depthwise, Halves
from export.test_onnx_export import change_card
from export.wrong import WRONG, photos, proof, settings
from predictor.cli import main
from predictor.errors import ExportError, ModelError
from predictor.export import onnx as onnx_format
from predictor.export.carried import prepare
from predictor.export.options import Options
from predictor.export.subject import load
from predictor.models.loading import load_model
from predictor.settings import Settings

FILE = onnx_format.FILE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the 20 photographs."""
    folder = tmp_path_factory.mktemp("photos")
    for name, data in photos():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module", params=[Halves, Depthwise])
def model(request, tmp_path_factory):
    return load(settings(tmp_path_factory.mktemp("net"), request.param))


@pytest.fixture(scope="module")
def quantised(model, folder, tmp_path_factory):
    """The int8 file, and what its export says."""
    out = tmp_path_factory.mktemp("int8")
    notes = onnx_format.write(model, out, Options(int8=True, calibrate=(str(folder),)))
    return out / FILE, notes


def answers(path, feeds, level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    return np.concatenate([session.run(None, feed)[0] for feed in feeds])


def test_int8_file_is_served_as_what_it_is(model, quantised):
    path, notes = quantised
    served = load_model(Settings(model=str(path), precision="int8"), 2)
    assert served.info.precision == "int8"
    pixels = [prepare(data, served.card) for _, data in photos()]
    best = [served.labels[row.argmax()] for row in served.scorer.logits(pixels, 1)]
    expected = model.answers([data for _, data in photos()]).best
    same = sum(one == other for one, other in zip(best, expected, strict=True))
    assert 15 <= same <= 20
    assert notes["int8"].startswith(f"{100 * same / 20:.1f} % of the 20 calibration photos")
    assert notes["lost %"] == 100 - 100 * same / 20
    with pytest.raises(ModelError, match="is float32, but .* was exported in int8"):
        load_model(Settings(model=str(path), precision="float32"), 2)


def test_int8_file_carries_what_it_costs(quantised):
    path, notes = quantised
    texts = {one.key: one.value for one in onnx.load(path).metadata_props}
    assert texts.keys() == {"predictor", "int8"}
    said = json.loads(texts["int8"])
    assert said == {key: notes[key] for key in said}
    assert said["calibration photos"] == 20


def test_int8_weights_do_not_overflow_on_processors_without_vnni(model, quantised):
    path, _ = quantised
    served = load_model(Settings(model=str(path)), 2)
    feeds = [served.scorer.feed([prepare(data, served.card)]) for _, data in photos()]
    levels = onnxruntime.GraphOptimizationLevel
    exact, fast = (
        answers(path, feeds, level) for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_ALL)
    )
    assert np.abs(exact - fast).max() <= 0.05 * np.abs(exact).max()
    graph = onnx.load(path).graph
    arrays = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    greatest = {
        array.shape: np.abs(array.astype(int)).max()
        for array in arrays.values()
        if array.dtype == np.int8 and array.ndim > 1
    }
    assert len(greatest) == (4 if type(model.network).__name__ == "Depthwise" else 3)
    for shape, value in greatest.items():
        deep = len(shape) == 4 and shape[1] == 1
        assert (value > 100) if deep else (32 < value <= 64), shape


def test_wrong_labels_in_an_int8_file_are_rejected(model, quantised):
    path, _ = quantised
    assert proof(onnx_format, model, path.parent, int8=True).ok
    kept = path.read_bytes()
    change_card(path, WRONG["labels shifted by one"])
    assert not proof(onnx_format, model, path.parent, int8=True).ok
    path.write_bytes(kept)


@pytest.fixture
def exported(tmp_path, folder, monkeypatch):
    """Export the network with these options; return the exit status, and what was printed."""
    own = settings(tmp_path, Halves)
    model = load(own)
    rows = [(folder / name, *model.answers([data]).best[0]) for name, data in photos()]
    with (tmp_path / "judge.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "class_id", "class_name"), *rows])
    names = ("model", "weights", "labels", "input_size", "resize", "mean", "std")
    for name in names:
        monkeypatch.setenv(f"PREDICTOR_{name.upper()}", str(getattr(own, name)))

    def export(*options):
        judge = ["--judge", str(tmp_path / "judge.csv"), "--out", str(tmp_path / "out")]
        return main(["export", "onnx", "--int8", "--no-check", *judge, *options])

    return export


def test_too_large_loss_ends_the_command_with_3(exported, tmp_path, capsys):
    (tmp_path / "black.png").write_bytes(photos()[-1][1])
    calibrate = ["--calibrate", str(tmp_path / "black.png")]
    status = exported(*calibrate)
    said = json.loads((tmp_path / "out" / "export.json").read_text())["notes"]
    assert status == 3
    assert said["lost %"] > 1
    output = capsys.readouterr()
    assert f"int8 loses {said['lost %']:g} % top-1" in output.err
    assert (
        f"Of 20 photos, int8 has {100 - said['lost %']:.1f} % right and float32 100.0 %"
        in output.out
    )
    shutil.rmtree(tmp_path / "out")
    assert exported(*calibrate, "--accept-loss", str(said["lost %"])) == 0


def test_photos_that_calibrate_and_judge_are_counted(exported, folder, tmp_path):
    two = map(str, sorted(folder.iterdir())[:2])
    exported("--accept-loss", "100", "--calibrate", *two)
    said = json.loads((tmp_path / "out" / "export.json").read_text())["notes"]
    assert "2 of them calibrated int8, so that others may lose more." in said["int8"]


def test_int8_in_two_files(model, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_format, "LARGE", 1000)
    options = Options(int8=True, calibrate=(str(folder),), input="uint8")
    onnx_format.write(model, tmp_path, options)
    assert sorted(one.name for one in tmp_path.iterdir()) == [FILE, f"{FILE}.data"]
    assert proof(onnx_format, model, tmp_path, int8=True).ok


def test_photos_that_are_not_there_are_named(model, tmp_path):
    options = Options(int8=True, calibrate=(str(tmp_path / "none.jpg"),))
    with pytest.raises(ExportError, match=r"none.jpg cannot be read: No such file"):
        onnx_format.write(model, tmp_path, options)
