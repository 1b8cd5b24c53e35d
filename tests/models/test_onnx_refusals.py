"""An ONNX file that cannot be served stops the start with one sentence."""

import sys

import onnxruntime
import pytest

from onnx_files import FLOAT, UINT8, write, write_in_two
from predictor.errors import ModelError
from predictor.models import sources
from predictor.models.loading import load_model
from predictor.settings import Settings

TOML = "[input]\nresize = 72\nmean = 0.5\nstd = 0.5\n"
SCALE = '[input]\nresize = 72\nscale = "0..1"\n'
INT64 = 7  # of TensorProto's types
# What is written, what model.toml says, and what the sentence says.
REFUSED = {
    "too new": ({"opset": 99}, TOML, "net.onnx: .*opset .* update onnxruntime"),
    "too new a format": ({"ir": 99}, TOML, "net.onnx: Unsupported model IR version: 99.* update"),
    "operator of a library": ({"operator": ("com.acme", "Gate")}, TOML, "com.acme:Gate.* not a"),
    "unknown operator": ({"operator": ("", "Gate")}, TOML, "No Op registered for Gate"),
    "two inputs": ({"further_inputs": 1}, TOML, "has 2 inputs, image, more-0; it must have one"),
    "numbers as input": ({"shape": ("N", 3, 64, 64), "type": INT64}, TOML, "takes tensor.int64"),
    "unclear layout": ({"shape": ("N", 3, 64, 3)}, TOML, "N, C, height, width. or .N, height"),
    "five channels": ({"shape": ("N", 5, 64, 64)}, TOML, "with 1, 3 or 4 channels C"),
    "no batch": ({"shape": (3, 64, 64)}, TOML, "takes tensor.float. .3, 64, 64.; its inp"),
    "nothing described": ({}, "", r": resize, mean, std missing.*\n\[input\]\nresize = 256"),
    "any size": ({"shape": ("N", 3, "H", "W")}, TOML, "not described: size missing"),
    "other size": ({}, f"{TOML}size = 96\n", "64 × 64 × 3 .* says 96 × 96 × 3"),
    "other channels": ({}, f'{TOML}channels = "L"\n', "64 × 64 × 3 .* says 64 × 64 × 1"),
    "uint8 with a mean": ({"type": UINT8}, TOML, "normalises them.* Remove mean and std"),
    "uint8 on a scale": ({"type": UINT8}, SCALE, "normalises them"),
    "no such output": ({}, f"{TOML}[output]\nselect = 'logit'", "returns logits .*select"),
    "two outputs": ({"outputs": {"a": ("N", 20), "b": ("N", 20)}}, TOML, "returns a .*, b .*"),
    "feature maps": ({"outputs": {"map": ("N", 16, 62, 62)}}, TOML, "returns map .*must have"),
    "broken metadata": ({"metadata": {"predictor": "{"}}, TOML, "net.onnx: .* not a JSON object"),
    "list as metadata": ({"metadata": {"predictor": "[1]"}}, TOML, "net.onnx: .*not a JSON object"),
    "unknown metadata": ({"metadata": {"predictor": '{"nam": 1}'}}, TOML, "no key nam"),
}  # fmt: skip


def load(path, toml=TOML, **settings):
    (path.parent / "model.toml").write_text(toml)
    return load_model(Settings(model=str(path), **settings), 2)


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_onnx_file_stops_the_start_in_one_sentence(tmp_path, case):
    options, toml, sentence = REFUSED[case]
    path = write(tmp_path / "net.onnx", **options)
    with pytest.raises(ModelError, match=sentence) as error:
        load(path, toml)
    assert "\n" not in str(error.value).partition("for example:")[0]


@pytest.mark.parametrize("left", [1, 0.5, 0.01])
def test_truncated_onnx_file_says_so(tmp_path, left):
    path = write(tmp_path / "net.onnx")
    content = path.read_bytes()
    path.write_bytes(content[: -1 if left == 1 else int(len(content) * left)])
    with pytest.raises(ModelError, match="cannot open .*net.onnx: Protobuf parsing failed. Copy"):
        load(path)


@pytest.mark.parametrize("remains", [None, 40])
def test_missing_second_file_is_named_as_the_cause(tmp_path, remains):
    data = write_in_two(tmp_path / "net.onnx")
    data.write_bytes(data.read_bytes()[:remains]) if remains else data.unlink()
    with pytest.raises(ModelError, match=r"External .*Copy it again with all its files"):
        load(tmp_path / "net.onnx")


def test_second_file_in_another_folder_is_not_read(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    data = write_in_two(folder / "net.onnx")
    data.rename(tmp_path / data.name)
    path = folder / "net.onnx"
    path.write_bytes(path.read_bytes().replace(b"weights.data", b"../weights.d"))
    (tmp_path / data.name).rename(tmp_path / "weights.d")
    with pytest.raises(ModelError, match="cannot open"):
        load(path)


def test_weights_beside_an_onnx_file_are_refused(tmp_path):
    path = write(tmp_path / "net.onnx")
    with pytest.raises(ModelError, match="net.onnx has its own weights. Remove PREDICTOR_WEIGHTS"):
        load_model(Settings(model=str(path), weights="random"), 2)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_precision_of_an_onnx_file_cannot_be_changed(tmp_path, precision):
    path = write(tmp_path / "net.onnx", type=FLOAT)
    assert load(path, precision="float32").info.precision == "float32"
    with pytest.raises(ModelError, match=f"PREDICTOR_PRECISION is {precision}, but .*exported in"):
        load(path, precision=precision)


def test_int8_for_a_float_file_names_the_command_that_quantises(tmp_path):
    path = write(tmp_path / "net.onnx", type=FLOAT)
    with pytest.raises(ModelError, match=r"never quantises.*predictor export onnx --int8"):
        load(path, precision="int8")


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", "gpu"])
def test_device_that_onnx_runtime_lacks_is_refused(tmp_path, device):
    path = write(tmp_path / "net.onnx")
    assert load(path, device="cpu").info.device == "cpu"
    with pytest.raises(ModelError, match=f"PREDICTOR_DEVICE is '{device}'.*onnxruntime-gpu"):
        load(path, device=device)


def test_gpu_build_without_a_gpu_is_refused_for_cuda(tmp_path, monkeypatch):
    """The GPU build falls back to the CPU by itself, and says so only in its own log."""
    path = write(tmp_path / "net.onnx")
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    open_session = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *given: open_session(*given[:2], [providers[1]])
    )
    with pytest.raises(ModelError, match="PREDICTOR_DEVICE='cuda:0' cannot be used"):
        load(path, device="cuda:0")
    assert load(path).info.device == "cpu"


def test_missing_onnxruntime_names_the_line_that_installs_it(tmp_path, monkeypatch):
    path = write(tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "predictor.models.sources.onnx", raising=False)
    monkeypatch.delattr(sources, "onnx", raising=False)
    with pytest.raises(ModelError, match=r"onnxruntime is not installed. Run: pip install"):
        load(path)
