import collections
import contextlib
import copyreg
import dataclasses
import functools
import io
import os
import pathlib
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch
from torch import nn

from predictor.errors import WeightsError
from predictor.models import checkpoints


@pytest.fixture
def state():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)).state_dict()


@dataclasses.dataclass
class Config:
    lr: float = 0.1


class EasyDict(dict):
    pass


class Calls:
    """Asks the reader of a pickle to call a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Attacks:
    """Asks the reader of a pickle to set an object's state."""

    def __init__(self, target, state):
        self.reduced = target, (), state

    def __reduce__(self):
        return self.reduced


def write_marker():
    (pathlib.Path(os.environ["MARKER"])).touch()


class SetsState:
    def __setstate__(self, state):
        write_marker()


class New:
    def __new__(cls, *arguments):
        if arguments:
            write_marker()
        return super().__new__(cls)

    def __reduce_ex__(self, protocol):
        return copyreg.__newobj__, (New, 1)


@pytest.mark.parametrize(
    "hostile",
    [
        Calls(write_marker),
        Calls(eval, "__import__('pathlib').Path(__import__('os').environ['MARKER']).touch()"),
        Calls(exec, "import os, pathlib; pathlib.Path(os.environ['MARKER']).touch()"),
        Calls(functools.partial(write_marker)),
        Attacks(SetsState, {"a": 1}),
        Attacks(SetsState, (None, {"__class__": 1})),
        New(),
        {New(): 1, Calls(write_marker): 2, SetsState: 3},
    ],
    ids=lambda hostile: str(getattr(hostile, "call", getattr(hostile, "reduced", hostile)))[:40],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_in_a_pickle_is_executed(
    state, torch_save, hostile, protocol, tmp_path, monkeypatch
):
    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    path = torch_save({"a": hostile, "state_dict": state}, pickle_protocol=protocol)
    names = checkpoints.read(path).tensors.keys()
    assert not (tmp_path / "marker").exists()
    assert names == {f"state_dict.{name}" for name in state}
    torch.load(path, weights_only=False)
    assert (tmp_path / "marker").exists(), "the file of this test is harmless"


@pytest.mark.parametrize("target", [Config, collections.OrderedDict, EasyDict])
def test_attributes_that_a_pickle_sets_have_no_effect(state, torch_save, target):
    attributes = {"items": write_marker, "__len__": None, "__class__": 1, "_metadata": len}
    found = checkpoints.read(
        torch_save({"a": Attacks(target, attributes), "state_dict": state})
    ).tensors
    assert found.keys() == {f"state_dict.{name}" for name in state}


@pytest.mark.parametrize("function", [os.system, subprocess.run, sys.exit, os.remove])
def test_file_that_names_the_operating_system_is_refused(state, torch_save, function):
    path = torch_save({"state_dict": state, "a": Calls(function, "touch marker")})
    with pytest.raises(WeightsError, match="as attacks do"):
        checkpoints.read(path)


def zip_of(path, pickled):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", pickled)
    return path


@pytest.mark.parametrize("path", [*checkpoints.Reader(io.BytesIO()).known], ids=str)
def test_pickle_cannot_change_a_function_of_this_process(tmp_path, path):
    """BUILD sets attributes, also of what is named in the file."""
    module, _, name = path.rpartition(".")
    state = b"(N(X\x0c\x00\x00\x00__defaults__NX\x01\x00\x00\x00xNdt"  # (None, {…})
    target = functools.reduce(getattr, path.split(".")[1:], sys.modules[path.split(".")[0]])
    before = dict(vars(target)), getattr(target, "__defaults__", None)
    with contextlib.suppress(WeightsError):
        checkpoints.read(
            zip_of(tmp_path / "n.pth", f"c{module}\n{name}\n".encode() + state + b"b.")
        )
    assert (dict(vars(target)), getattr(target, "__defaults__", None)) == before


def test_100_000_lists_in_each_other_do_no_harm(tmp_path):
    path = zip_of(tmp_path / "n.pth", b"]" * 100_000 + b"a" * 99_999 + b".")
    with pytest.raises(WeightsError, match="no tensors"):
        checkpoints.read(path)


def test_tensor_beyond_its_storage_is_refused(torch_save, tmp_path):
    path = torch_save({"a": torch.zeros(1000)})
    damaged = path.read_bytes().replace(b"M\xe8\x03\x85", b"M\xff\xff\x85")  # its size: (1000,)
    path.write_bytes(damaged)
    with pytest.raises(WeightsError, match="truncated"):
        checkpoints.read(path)


@pytest.mark.parametrize("content", [{"model": None}, [1, 2, 3], None, {}])
def test_file_without_tensors_is_refused(torch_save, content):
    with pytest.raises(WeightsError, match="must hold a state_dict, but holds no tensors"):
        checkpoints.read(torch_save(content))


def test_objects_without_tensors_are_refused(torch_save):
    with pytest.raises(WeightsError, match="Python objects, which are not loaded.*state_dict"):
        checkpoints.read(torch_save(Config()))


@pytest.mark.parametrize("content", [nn.Linear(2, 2), {"epoch": 1, "model": nn.Linear(2, 2)}])
def test_whole_model_is_refused_with_the_command_that_converts_it(torch_save, content):
    message = r"whole model \(torch.nn.modules.linear.Linear\).*`predictor convert .*n.pth`"
    with pytest.raises(WeightsError, match=message):
        checkpoints.read(torch_save(content))


@pytest.mark.filterwarnings("ignore")
def test_quantised_weights_are_refused_with_the_way_that_works(torch_save):
    tensor = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    with pytest.raises(WeightsError, match="quantised.*TorchScript"):
        checkpoints.read(torch_save({"fc.weight": tensor}))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"\n<!doctype html><title>404</title>", "web page", id="html"),
        pytest.param(b"{}", "truncated", id="text"),
        pytest.param(b"PK\x03\x04 and so on", "truncated", id="broken zip"),
        pytest.param(pickle.dumps([1]), "truncated", id="another pickle"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".index.json"])
def test_error_says_what_an_unreadable_file_is(tmp_path, content, reason, suffix):
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=reason):
        checkpoints.read(path)


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_error_says_that_a_file_is_truncated(torch_save, fraction):
    path = torch_save({"a": torch.zeros(10_000)})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    with pytest.raises(WeightsError, match="truncated"):
        checkpoints.read(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_error_says_that_a_file_is_torchscript(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "net.pt")
    with pytest.raises(WeightsError, match=r"TorchScript.*PREDICTOR_MODEL=.*net\.pt"):
        checkpoints.read(tmp_path / "net.pt")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("net/archive_format", r"torch\.export.*PREDICTOR_MODEL=.*net\.pth"),
        ("MAR-INF/MANIFEST.json", "predictor convert"),
    ],
)
def test_error_says_what_another_archive_is(tmp_path, record, reason):
    with zipfile.ZipFile(tmp_path / "net.pth", "w") as archive:
        archive.writestr(record, b"")
    with pytest.raises(WeightsError, match=reason):
        checkpoints.read(tmp_path / "net.pth")
