"""A checkpoint file → its tensors by name. Nothing in the file is executed.

``torch.load(weights_only=True)`` refuses files that hold more than tensors, such as NumPy's numbers
or an ``argparse.Namespace``. This module reads the same formats: zip, the older one without zip,
and safetensors. Objects of a pickle become stand-ins, and tensors are built afterwards.
"""

import io
import json
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple
from zipfile import ZIP_STORED, ZipFile

import torch
from torch import Tensor

from predictor.errors import WeightsError

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle in a file of torch.save before torch 1.6
DEPTH = 8  # of mappings in each other; Lightning and DeepSpeed need 3
IN_FOLDERS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
# torch.load blocks these, too. Stand-ins are harmless, but such a file is an attack.
HOSTILE = {"commands", "nt", "os", "posix", "subprocess", "sys"}
DTYPES = {"BFloat16": torch.bfloat16, "Bool": torch.bool, "Byte": torch.uint8, "Char": torch.int8,
          "Double": torch.float64, "Float": torch.float32, "Half": torch.float16,
          "Int": torch.int32, "Long": torch.int64, "Short": torch.int16,
          "Untyped": torch.uint8}  # fmt: skip
SAVE = "Save a state_dict: torch.save(net.state_dict(), …)."
NOT_LOADED = "which are not loaded because they may run any code"
QUANTISED = (
    "holds quantised weights, which fit only the network that quantisation has rewritten. Serve"
    " that network as TorchScript (torch.jit.save(torch.jit.trace(net, photo), …)), or save the"
    " state_dict before quantisation."
)
# A record of a zip archive → what the archive is. A program in PREDICTOR_MODEL is served.
OTHER_ARCHIVES = {
    "constants.pkl": "is a program of TorchScript. Set PREDICTOR_MODEL={path} instead.",
    "archive_format": "is a program of torch.export. Set PREDICTOR_MODEL={path} instead.",
    "MANIFEST.json": "is an archive for TorchServe; `predictor convert` reads it.",
}


@dataclass
class Checkpoint:
    """What a file holds. Nested mappings give names with dots: ``state_dict.conv1.weight``."""

    path: Path
    tensors: dict[str, Tensor]
    key: str | None = None  # where the operator says the weights are, such as ``ema``
    objects: tuple[str, ...] = ()  # the names of functions and classes that were not loaded
    model: str | None = None  # the class of a whole network in the file


class _Tensor(NamedTuple):
    """A tensor as data: it has no methods that a pickle could call."""

    storage: tuple[torch.dtype, Any]  # and its key
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Inert(dict[Any, Any]):
    """Stands in for any object. It accepts what a pickle can do to an object, and does nothing.

    It is a dict because dictionaries of other classes, such as EasyDict, may hold weights.
    """

    networks: ClassVar[list[str]]

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Note whether the object is a network."""
        if isinstance(state, dict) and "_modules" in state:
            self.networks.append(type(self).__name__)

    def __call__(self, *_: Any, **__: Any) -> "Inert":
        """Return another stand-in."""
        return type(self)()

    def append(self, item: Any) -> None:
        """Ignore the item of a list or set."""

    add = extend = append
    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__


class Reader(pickle.Unpickler):
    """Reads a pickle into plain data, :class:`_Tensor` and :class:`Inert`."""

    def __init__(self, file: BinaryIO | io.BytesIO) -> None:
        super().__init__(file, encoding="latin1")  # of texts that Python 2 wrote
        self.dtypes: dict[Any, torch.dtype] = {}
        self.objects: dict[str, None] = {}  # an ordered set
        self.networks: list[str] = []
        # Functions of this reader alone: a pickle can set a function's attributes.
        self.known: dict[str, Any] = {
            "collections.OrderedDict": OrderedDict,
            "torch.Size": lambda size=(): tuple(size),
            "torch._tensor._rebuild_from_type_v2": lambda build, _, given, *__: build(*given),
            "torch._utils._rebuild_device_tensor_from_cpu_tensor": lambda tensor, *_: tensor,
            "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
            "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
            "torch._utils._rebuild_tensor": lambda *given: _Tensor(*given[:4]),
            "torch._utils._rebuild_tensor_v2": lambda *given: _Tensor(*given[:4]),
            "torch._utils._rebuild_tensor_v3": lambda *given: _Tensor(
                (given[6], given[0][1]), *given[1:4]
            ),
        }

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for the function or class of this name."""
        path = f"{module}.{name}"
        if path in self.known:
            return self.known[path]
        if module in HOSTILE:
            raise WeightsError(f"names {path}, as attacks do and checkpoints do not.")
        if module.startswith("torchao.") or name == "_rebuild_qtensor":
            raise WeightsError(QUANTISED)
        if module.startswith("torch") and name.removesuffix("Storage") in DTYPES:
            return DTYPES[name.removesuffix("Storage")]
        if module == "torch" and isinstance(dtype := vars(torch).get(name), torch.dtype):
            return dtype
        self.objects[path] = None
        return type(path, (Inert,), {"networks": self.networks})

    def persistent_load(self, pid: Any) -> Any:
        """Return the storage, or in an old whole model the class, that is outside the pickle."""
        if pid[0] == "module":
            return pid[1]
        self.dtypes[pid[2]] = pid[1]
        return pid[1], pid[2]


def read(path: Path, key: str | None = None) -> Checkpoint:
    """Read the tensors of a file, memory-mapped if the format allows it.

    The path may also be the index of several safetensors files, or the folder of such files.
    ``key`` chooses one of several networks in the file.

    Raises:
        WeightsError: the file holds no tensors. The message says what the file is.
    """
    if path.is_dir():
        path = next((path / name for name in IN_FOLDERS if (path / name).is_file()), path)
    try:
        checkpoint = _read_any(path)
    except WeightsError as error:
        raise WeightsError(f"{path} {error}") from error
    except Exception as error:
        # An unpickler may raise any exception for other bytes, so the bytes determine the message.
        raise WeightsError(f"{path} {_what_it_is(path)}") from error
    if not checkpoint.tensors:
        raise no_weights(checkpoint)
    return replace(checkpoint, key=key)


def no_weights(checkpoint: Checkpoint) -> WeightsError:
    """Return the error for a file that holds something else in place of the weights."""
    path = checkpoint.path
    if checkpoint.model:
        return WeightsError(
            f"{path} holds a whole model ({checkpoint.model}): Python objects, {NOT_LOADED}."
            f" If you trust the file, `predictor convert {path}` loads it and writes its weights."
        )
    if checkpoint.objects:
        return WeightsError(f"{path} holds Python objects, {NOT_LOADED}. {SAVE}")
    return WeightsError(f"{path} must hold a state_dict, but holds no tensors.")


def _read_any(path: Path) -> Checkpoint:
    if path.is_dir():
        raise WeightsError(f"is a folder without {' or '.join(IN_FOLDERS)}.")
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    with path.open("rb") as file:
        head = file.read(9)
        file.seek(0)
        if head[8:] == b"{":  # safetensors: 8 bytes of length, then JSON
            from safetensors.torch import load_file  # here: few files are in this format

            return Checkpoint(path, load_file(path))
        return (_read_zip if head.startswith(b"PK") else _read_old)(path, file)


def _read_shards(path: Path) -> Checkpoint:
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())):
        part = path.with_name(Path(name).name)
        if not part.is_file():
            raise WeightsError(f"names {part.name}, which is missing beside it.")
        tensors |= read(part).tensors
    return Checkpoint(path, tensors)


def _read_zip(path: Path, file: BinaryIO) -> Checkpoint:
    with ZipFile(file) as archive:
        records = {record.filename.partition("/")[2]: record for record in archive.infolist()}
        for name in OTHER_ARCHIVES.keys() & records:
            raise WeightsError(OTHER_ARCHIVES[name].format(path=path))
        reader = Reader(io.BytesIO(archive.read(records["data.pkl"])))
    mapped = torch.UntypedStorage.from_file(str(path), shared=False, nbytes=path.stat().st_size)

    def load(key: Any) -> Tensor:
        record = records[f"data/{key}"]
        if record.compress_type != ZIP_STORED:
            raise ValueError("torch.save does not compress")
        file.seek(record.header_offset + 26)  # the local header: 30 bytes, the last 4 of them sizes
        start = record.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
        return torch.empty(0, dtype=torch.uint8).set_(mapped[start : start + record.file_size])

    return _checkpoint(path, reader, reader.load(), load)


def _read_old(path: Path, file: BinaryIO) -> Checkpoint:
    """Read five pickles (the third is the content, the last its storages' keys), then storages."""
    magic, _version, _system = (Reader(file).load() for _ in range(3))
    if magic != MAGIC:
        raise ValueError("not a file of torch.save")
    reader = Reader(file)
    content = reader.load()
    storages: dict[Any, Tensor] = {}
    for key in Reader(file).load():
        size = struct.unpack("<q", file.read(8))[0] * reader.dtypes[key].itemsize
        if size > path.stat().st_size:
            raise EOFError
        storages[key] = torch.empty(size, dtype=torch.uint8)
        if size and file.readinto(storages[key].numpy()) < size:  # type: ignore[attr-defined]
            raise EOFError
    return _checkpoint(path, reader, content, storages.__getitem__)


def _checkpoint(
    path: Path, reader: Reader, content: Any, load: Callable[[Any], Tensor]
) -> Checkpoint:
    """Build the tensors in what a reader has read. ``load`` returns the bytes of a storage."""
    tensors, storages = {}, {}
    for name, tensor in _walk(content, (), set()):
        dtype, key = tensor.storage
        if tensor.storage not in storages:  # tensors may share a storage
            storages[tensor.storage] = load(key).view(dtype)
        flat = storages[tensor.storage]
        tensors[".".join(name)] = flat.as_strided(tensor.size, tensor.stride, tensor.offset)
    network = reader.networks[-1] if reader.networks else None  # it follows its parts
    return Checkpoint(path, tensors, objects=tuple(reader.objects), model=network)


def _walk(
    content: Any, path: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], _Tensor]]:
    """Yield the tensors in nested mappings and lists, with their paths."""
    if isinstance(content, _Tensor):
        yield path, content
    elif isinstance(content, dict | list | tuple) and len(path) <= DEPTH:
        if id(content) in seen:  # a pickle may contain itself
            return
        seen.add(id(content))
        items = dict.items(content) if isinstance(content, dict) else enumerate(content)
        for key, value in items:
            if isinstance(key, str | int):
                yield from _walk(value, (*path, str(key)), seen)


def _what_it_is(path: Path) -> str:
    """Return the end of a sentence that says what an unreadable file is and what to do."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "is empty."
    if head.lstrip()[:1] == b"<":
        return "is a web page instead of weights. Download the file again."
    return "is truncated, or was not written by torch.save or safetensors."
