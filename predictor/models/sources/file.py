"""A file or a folder: its content decides what it is, because an ending can mean many things."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from predictor.errors import ModelError
from predictor.models.description import Said
from predictor.models.sources import Found, Request

# Modules beside this one. Every other kind is a sentence about what the file is and what to do.
SOURCES = ("exported", "onnx", "timm", "torchscript")
WEIGHTS = "weights"
ARCHIVE = "is an archive. Unpack it, and name the model's file or folder."
CONVERT = "is made for TorchServe. Convert it first: predictor convert {path}"
KERAS = (
    "is a model of Keras. Serve the ONNX file that Keras writes:"
    ' keras.models.load_model("{path}").export("net.onnx", format="onnx")'
)
TENSORFLOW = "is a model of TensorFlow. Serve the ONNX file that python -m tf2onnx.convert writes."
HUGGING_FACE = (
    "is a folder of Hugging Face. Write net.py with: def build(): return"
    ' transformers.AutoModelForImageClassification.from_pretrained("{path}") and set'
    " PREDICTOR_MODEL=net.py:build"
)
# In each table, the first row that fits counts. By the end of a record's name in a zip archive:
RECORDS = {
    "/constants.pkl": "torchscript", "/archive_format": "exported", "/data.pkl": WEIGHTS,
    "/serialized_exported_program.json": "is of torch before 2.8. Export the network again.",
    "/MAR-INF/MANIFEST.json": CONVERT, "/model.weights.h5": KERAS,
    ".npy": "holds arrays of NumPy. Save a state_dict instead: torch.save(net.state_dict(), …).",
    "": ARCHIVE,
}  # fmt: skip
# By a name in a folder:
NAMES = {
    "saved_model.pb": TENSORFLOW, "MAR-INF": CONVERT, "config.json": HUGGING_FACE,
    "model.safetensors": WEIGHTS, "model.safetensors.index.json": WEIGHTS,
    "pytorch_model.bin": WEIGHTS,
    "": "is a folder that has no model.toml. Add one, or name the model's file in it.",
}  # fmt: skip
# By bytes at an offset, after white space; a pickle and safetensors hold weights:
MAGIC = {
    (0, b"\x80"): WEIGHTS, (8, b"{"): WEIGHTS,
    (0, b"version https://git-lfs"): "is a pointer of Git LFS. Get the file itself: git lfs pull",
    (0, b"<?xml"): "is XML. Of a model of OpenVINO, serve the ONNX file that it was made from.",
    (0, b"<"): "is a web page instead of a model. Download the file again.",
    (0, b"\x89HDF"): KERAS, (4, b"TFL3"): TENSORFLOW,
    (0, b"\x1f\x8b"): ARCHIVE, (257, b"ustar"): ARCHIVE,
    (0, b"\x08"): "onnx",  # the key of ir_version, which is the first field of ModelProto
    (0, b""): "holds no model of a known format, or it is truncated.",
}  # fmt: skip


def find(request: Request) -> Found:
    """Find the model in a file or folder.

    Raises:
        ModelError: it holds no model, or only weights of a network that nobody names.
    """
    path = Path(request.target)
    kind = recognise(path)
    if kind == WEIGHTS:
        return _published(path, request)
    if kind not in SOURCES:
        raise ModelError(f"{path} {kind.format(path=path)}")
    if kind == "timm":
        request = replace(request, target=f"local-dir:{path}")
    elif request.weights not in ("auto", request.target):
        raise ModelError(f"{path} has its own weights. Remove {request.said['weights'].origin}.")
    found: Found = import_module(f"predictor.models.sources.{kind}").find(request)
    return found


def _published(path: Path, request: Request) -> Found:
    """Find the model of weights that torchvision has published, or say what else they need."""
    from predictor.models import checkpoints
    from predictor.models.sources import torchvision

    if (published := torchvision.published_by_torchvision(path.name)) is None:
        checkpoint = checkpoints.read(path)
        if checkpoint.model or not checkpoint.tensors:
            raise checkpoints.no_weights(checkpoint)
        raise ModelError(
            f"{path} holds only weights. Set PREDICTOR_MODEL to their network, such as resnet18 or"
            f" net.py:build, and PREDICTOR_WEIGHTS={path}."
        )
    said = request.said | {"weights": Said(str(path), "PREDICTOR_MODEL")}
    return torchvision.find(replace(request, target=published, said=said))


def recognise(path: Path) -> str:
    """Return what an existing file or folder is: a row of one of the tables above."""
    if path.is_dir():
        config = path / "config.json"
        if config.is_file() and b'"architecture"' in config.read_bytes():
            return "timm"
        return next(kind for name, kind in NAMES.items() if (path / name).exists())
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"PK"):
        return _in_archive(path)
    if not head:
        return "is empty. Save or download it again."
    if path.suffix == ".py":
        return "is code. Name what builds the network in it, such as {path}:build"
    rows = MAGIC.items()
    return next(kind for (at, magic), kind in rows if head[at:].lstrip().startswith(magic))


def _in_archive(path: Path) -> str:
    try:
        with ZipFile(path) as archive:
            names = [f"/{name}" for name in archive.namelist()] or [""]
            # Of a truncated archive, zipfile may read another one inside it.
            whole = min((one.header_offset for one in archive.infolist()), default=0) == 0
    except BadZipFile:
        whole = False
    if not whole:
        return "is truncated. Save or download it again."
    return next(kind for end, kind in RECORDS.items() for name in names if name.endswith(end))
