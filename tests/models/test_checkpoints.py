import argparse
import collections
import dataclasses
import enum
import functools
import json
import pathlib
import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from predictor.errors import WeightsError
from predictor.models import checkpoints


@pytest.fixture
def state():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)).state_dict()


def is_equal(found, state):
    return found.keys() == state.keys() and all(torch.equal(found[n], state[n]) for n in state)


class Mode(enum.Enum):
    FAST = "fast"


@dataclasses.dataclass
class Config:
    mode: Mode = Mode.FAST
    values: dict = dataclasses.field(default_factory=lambda: collections.defaultdict(list, a=[1]))


@dataclasses.dataclass(frozen=True, slots=True)
class Slots:
    lr: float = 0.1


class EasyDict(dict):
    __getattr__ = dict.__getitem__


class History(list):
    pass


Pair = collections.namedtuple("Pair", "a b")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_state_dict_is_read_from_every_protocol(state, torch_save, protocol):
    found = checkpoints.read(torch_save(state, pickle_protocol=protocol))
    assert is_equal(found.tensors, state)
    assert (found.objects, found.model) == ((), None)


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int8, torch.int16,
     torch.int32, torch.int64, torch.bool, torch.uint16, torch.float8_e4m3fn],
)  # fmt: skip
def test_tensors_keep_their_dtype(torch_save, dtype):
    tensor = torch.tensor([0, 1, 2, 3]).to(dtype)
    found = checkpoints.read(torch_save({"a": tensor})).tensors["a"]
    assert found.dtype == dtype
    assert torch.equal(found.to(torch.int64), tensor.to(torch.int64))


def test_tensors_of_every_layout_are_read(torch_save):
    whole = torch.arange(24.0)
    tensors = {
        "row": whole.view(4, 6)[1],
        "transposed": whole.view(4, 6).T,
        "expanded": whole[:1].expand(5),
        "number": whole.sum(),
        "nothing": torch.empty(0, 3),
        "parameter": nn.Parameter(whole),
        "channels last": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    assert is_equal(checkpoints.read(torch_save(tensors)).tensors, tensors)


def test_tensors_that_share_memory_still_share_it(torch_save):
    weight = torch.rand(3)
    found = checkpoints.read(torch_save({"a": weight, "b": weight, "c": weight[1:]})).tensors
    assert found["a"].data_ptr() == found["b"].data_ptr()
    assert found["c"].data_ptr() == found["a"].data_ptr() + 4


def test_zip_is_mapped_into_memory_and_the_file_stays_as_it_is(tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"a": torch.zeros(4)}, path)
    before = path.read_bytes()
    tensor = checkpoints.read(path).tensors["a"].add_(1)
    assert path.read_bytes() == before
    assert tensor.sum() == 4
    assert str(path) in pathlib.Path("/proc/self/maps").read_text()


@pytest.mark.parametrize(
    "value",
    [
        argparse.Namespace(lr=1, path=pathlib.Path("data")),
        types.SimpleNamespace(a=1),
        np.float64(0.9),
        np.arange(3),
        np.array(["a", None], dtype=object),
        np.dtype("float32"),
        np.random.RandomState(0),
        pathlib.PurePosixPath("/data"),
        Mode.FAST,
        Config(),
        Slots(),
        Pair(1, 2),
        EasyDict(a=EasyDict(b=1)),
        History([1]),
        collections.defaultdict(list, a=[1]),
        collections.Counter("aab"),
        collections.deque([1], maxlen=3),
        frozenset([1]),
        {1, 2},
        functools.partial(len, "a"),
        len,
        Config,
        {Mode.FAST: 1, Config: 2, (1, 2): 3, None: 4, Slots(): 5},
        b"bytes",
        bytearray(b"bytes"),
        1j,
        2**100,
        torch.device("cpu"),
        torch.float16,
        torch.Size([1]),
        torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1),
    ],
    ids=lambda value: str(type(value).__name__),
)
@pytest.mark.parametrize("protocol", [2, 5])
def test_object_beside_the_weights_is_ignored(state, torch_save, value, protocol):
    content = {"first": value, "state_dict": state, "last": value}
    found = checkpoints.read(torch_save(content, pickle_protocol=protocol)).tensors
    assert is_equal({n: t for n, t in found.items() if n.startswith("state_dict.")},
                    {f"state_dict.{n}": t for n, t in state.items()})  # fmt: skip


@pytest.mark.parametrize("kind", [EasyDict, collections.OrderedDict, functools.partial(
    collections.defaultdict, list)], ids=["EasyDict", "OrderedDict", "defaultdict"])  # fmt: skip
def test_weights_in_dictionaries_of_other_classes_are_found(state, torch_save, kind):
    found = checkpoints.read(torch_save(kind(epoch=1, model=kind(state)))).tensors
    assert is_equal(found, {f"model.{name}": tensor for name, tensor in state.items()})


def test_nested_names_are_joined_by_dots(torch_save):
    one = torch.ones(1)
    content = {"a": {"b": [one, {"c": one}]}, "optimizer": {0: {"step": one}}, "epoch": 3}
    names = checkpoints.read(torch_save(content)).tensors.keys()
    assert list(names) == ["a.b.0", "a.b.1.c", "optimizer.0.step"]


def test_dictionary_in_itself_is_read_once(state, torch_save):
    content = {"model": state}
    content["self"] = [content, content]
    assert len(checkpoints.read(torch_save(content)).tensors) == len(state)


def test_objects_that_were_not_loaded_are_named(state, torch_save):
    found = checkpoints.read(
        torch_save({"model": state, "args": argparse.Namespace(), "mode": Mode.FAST})
    )
    assert found.objects == ("argparse.Namespace", f"{__name__}.Mode")


@pytest.fixture
def shards(state, tmp_path):
    names = list(state)
    files = {"model-1.safetensors": names[:3], "model-2.safetensors": names[3:]}
    for file, part in files.items():
        save_file({name: state[name] for name in part}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    weight_map = {name: file for file, part in files.items() for name in part}
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth"])
def test_safetensors_are_read_whatever_their_name(state, tmp_path, name):
    save_file(state, tmp_path / name)
    assert is_equal(checkpoints.read(tmp_path / name).tensors, state)


def test_sharded_safetensors_are_read_by_index_or_folder(state, shards):
    assert is_equal(checkpoints.read(shards).tensors, state)
    assert is_equal(checkpoints.read(shards.parent).tensors, state)


def test_missing_shard_is_named(shards):
    (shards.parent / "model-2.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"names model-2.safetensors, which is missing"):
        checkpoints.read(shards)


def test_shards_are_only_searched_beside_the_index(state, shards):
    outside = shards.parent / "other" / "model.safetensors.index.json"
    outside.parent.mkdir()
    outside.write_text(shards.read_text().replace("model-1", "../model-1"))
    with pytest.raises(WeightsError, match=r"names model-1.safetensors, which is missing"):
        checkpoints.read(outside)


def test_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="is a folder without model.safetensors"):
        checkpoints.read(tmp_path)
