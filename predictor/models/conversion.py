"""A whole pickled model, or an archive for TorchServe → a folder that can be served.

Only ``predictor convert`` imports this module, because it executes what it converts.
"""

import importlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any
from zipfile import ZipFile, is_zipfile

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from predictor.errors import ModelError, StartError
from predictor.images.preprocessing import CHANNELS, Interpolation, Preprocessing
from predictor.models import checkpoints, description, loading
from predictor.models.outputs import pick
from predictor.settings import Settings

WRAPPERS = ("AveragedModel", "DataParallel", "DistributedDataParallel", "OptimizedModule")
SIDES = (224, 32, 28, 64, 96, 128, 160, 256, 299, 384)  # of photos that networks usually take
MAX_DIFFERENCE = 1e-4  # of the largest logit: the same network, in another memory layout
MANIFEST = "MAR-INF/MANIFEST.json"
CARD = "predictor.json"  # in archives that `predictor export torchserve` has written
# How TorchServe's handler image_classifier prepares photos.
IMAGE_CLASSIFIER = """
[input]
size = 224
resize = 256
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]

[output]
activation = "softmax"
"""
FILL_IN = "\n# How were photos prepared?" + "\n# ".join(IMAGE_CLASSIFIER.splitlines()) + "\n"


def convert(path: Path, folder: Path, program: Path | None = None) -> str:
    """Write a folder that answers as the model in a file does. Return what remains to be done.

    ``program`` is the Python file that wrote a pickle, if the network's class is in this program.

    Raises:
        ModelError: there is no network, its code is missing, or its class cannot be built.
    """
    if (path / MANIFEST).is_file() or (is_zipfile(path) and MANIFEST in ZipFile(path).namelist()):
        try:
            return _from_archive(path, folder)
        except Exception as error:  # the archive's code may raise any
            shutil.rmtree(folder, ignore_errors=True)
            raise ModelError(f"{path} cannot be converted: {error}") from error
    return _from_pickle(_unpickled(path, program), folder)


def _from_pickle(network: nn.Module, folder: Path) -> str:
    photo, logits = _example(network)
    folder.mkdir(parents=True)
    tensors = {name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    said = {"source": "net.py:build", "weights": "model.safetensors"}
    for source, further in _sources(network, folder, logits.shape[1]):
        _write(folder, said | {"source": source}, further)
        try:
            return _prove(folder, photo, logits)
        except StartError:
            continue
    _write(folder, said, FILL_IN)
    name = f"{type(network).__module__}.{type(network).__qualname__}"
    raise ModelError(
        f"{name} cannot be built without its arguments. {folder} has its weights: write there a"
        f" file net.py with a function `build` that returns {name}(…)."
    )


def _unpickled(path: Path, program: Path | None) -> nn.Module:
    if program:  # in its pickles, its classes are in the module __main__
        classes = {n: v for n, v in vars(_imported(program)).items() if isinstance(v, type)}
        vars(sys.modules["__main__"]).update(classes)
    try:
        content = torch.load(path, map_location="cpu", weights_only=False)
    except (AttributeError, ImportError) as error:
        raise ModelError(
            f"{path} needs code that is not found ({error}). Run the command in the folder of the"
            " training program. If the class is in the program itself, add --program train.py."
        ) from error
    except Exception as error:  # a pickle may raise any
        raise ModelError(f"{path} cannot be loaded: {error}") from error
    found = content.values() if isinstance(content, dict) else [content]
    network = next((value for value in found if isinstance(value, nn.Module)), None)
    if network is None or isinstance(network, torch.jit.ScriptModule):
        raise ModelError(
            f"{path} is not a pickled model. A state_dict is served as it is"
            f" (PREDICTOR_WEIGHTS={path}), and so is TorchScript (PREDICTOR_MODEL={path})."
        )
    while type(network).__name__ in WRAPPERS:
        network = next(network.children())
    return network.float().eval()


def _sources(network: nn.Module, folder: Path, outputs: int) -> Iterator[tuple[str, str]]:
    """Yield references that may build the network, with lines of ``model.toml`` for arguments."""
    module, name = type(network).__module__, type(network).__qualname__
    if timm := getattr(network, "pretrained_cfg", None):
        yield "timm:" + ".".join(filter(None, (timm["architecture"], timm.get("tag")))), ""
    if module.startswith("torchvision.models."):
        from torchvision import models

        for known in models.list_models(module=models):
            if models.get_model_builder(known).__module__ == module:
                yield f"torchvision:{known}", ""
    file = Path(getattr(sys.modules.get(module), "__file__", None) or "")
    if file.suffix == ".py" and "." not in module:
        module = os.path.relpath(file, folder)
    for arguments in ("", f"arguments = {{ num_classes = {outputs} }}\n"):
        yield f"{module}:{name}", arguments


def _from_archive(path: Path, folder: Path) -> str:
    manifest = _unpack(path, folder)
    weights, code, handler = (
        _within(manifest.get(key) or "") for key in ("serializedFile", "modelFile", "handler")
    )
    if not (folder / weights).is_file():
        raise ModelError("its manifest has no serializedFile that is in the archive.")
    said = {"name": manifest["modelName"], "version": str(manifest.get("modelVersion", "1.0"))}
    if code:
        network = _only_network(_imported(folder / code))
        network.load_state_dict(checkpoints.read(folder / weights).tensors)
        said |= {"source": f"{code}:{type(network).__name__}", "weights": weights}
    else:
        network = torch.jit.load(folder / weights, "cpu")  # type: ignore[no-untyped-call]
        said |= {"source": weights}
    if (folder / "index_to_name.json").is_file():
        said["labels"] = "index_to_name.json"
    if (folder / CARD).is_file():
        card = json.loads((folder / CARD).read_text("utf-8"))
        said |= {key: card[key] for key in ("name", "version")}
        _write(folder, said, _of_export(card, folder, manifest))
        return _prove(folder, *_example(network.eval(), card["input"]))
    _write(folder, said, IMAGE_CLASSIFIER if handler == "image_classifier" else "")
    return f"Its handler {handler} was not run. {_prove(folder, *_example(network.eval()))}"


def _of_export(card: dict[str, Any], folder: Path, manifest: dict[str, Any]) -> str:
    """Return the tables of ``model.toml``. Keep the labels, and what only TorchServe needs not."""
    labels = json.dumps(card["labels"], ensure_ascii=False)
    (folder / "index_to_name.json").write_text(labels, "utf-8")
    shutil.rmtree(folder / "predictor")
    for name in (CARD, _within(manifest["configFile"])):
        (folder / name).unlink()
    tables = {f"\n[{name}]": card[name] for name in description.TABLES}
    return "".join(
        "\n".join([head, *(f"{key} = {json.dumps(value)}" for key, value in table.items()), ""])
        for head, table in tables.items()
    )


def _unpack(path: Path, folder: Path) -> dict[str, Any]:
    """Copy the files of an archive, except the handler. Return what its manifest says."""
    if path.is_dir():
        shutil.copytree(path, folder)
    else:
        with ZipFile(path) as archive:
            archive.extractall(folder, map(_within, archive.namelist()))
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))["model"]
    shutil.rmtree((folder / MANIFEST).parent)
    handler = folder / _within(manifest.get("handler", "").partition(":")[0])
    if handler.is_file():
        handler.unlink()
    return manifest


def _within(name: str) -> str:
    """Return a name in an archive. Raise ModelError if it leads out of the archive."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
        raise ModelError(f"it names {name}, which is outside of it.")
    return name


def _imported(file: Path) -> ModuleType:
    sys.path.insert(0, str(file.parent.absolute()))
    try:
        return importlib.import_module(file.stem)
    except Exception as error:  # the program may raise any
        raise ModelError(f"{file} cannot be imported: {error}.") from error


def _only_network(module: ModuleType) -> nn.Module:
    """Build the one class that a module defines, without arguments, as TorchServe does."""
    own = [value for value in vars(module).values() if isinstance(value, type)
           and issubclass(value, nn.Module) and value.__module__ == module.__name__]  # fmt: skip
    if len(own) != 1:
        raise ModelError(f"{module.__file__} must define one network; it defines {len(own)}.")
    return own[0]()


def _write(folder: Path, said: dict[str, str], further: str) -> None:
    lines = [f"{key} = {json.dumps(text, ensure_ascii=False)}\n" for key, text in said.items()]
    (folder / description.FILE).write_text("".join([*lines, further]), "utf-8")


def _example(
    network: nn.Module, input: dict[str, Any] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return random pixels ``(height, width, C)`` that a network takes, and its logits for them."""
    shapes = [(side, side, channels) for channels in CHANNELS for side in SIDES]
    for shape in [(*input["size"], len(input["channels"]))] if input else shapes:
        photo = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        try:
            with torch.inference_mode():
                output = network(torch.from_numpy(photo).permute(2, 0, 1)[None] / 255)
        except (RuntimeError, ValueError, AssertionError):
            continue
        return photo, pick(output, None).float().reshape(1, -1).numpy()
    raise ModelError(f"The network takes no photo with sides of {', '.join(map(str, SIDES))}.")


def _prove(folder: Path, photo: NDArray[np.uint8], logits: NDArray[np.float32]) -> str:
    """Load the folder as the server does. Return what its ``model.toml`` lacks.

    Raises:
        StartError: it cannot be loaded, gives other logits, or has another number of labels.
    """
    height, width, count = photo.shape
    as_it_is = Preprocessing(
        (height, width), "none", Interpolation.BILINEAR, (0,) * count, (1,) * count, CHANNELS[count]
    )
    settings = Settings(model=str(folder), device="cpu", precision="float32")
    asked, where = loading.ask(settings, cpus=1)
    found = loading.find(asked, where)
    answer = found.load(as_it_is, None).scorer.logits([photo], 1)
    if answer.shape != logits.shape or len(asked.labels or logits[0]) != logits.size:
        raise ModelError(f"the model has {logits.size} classes, but not so its labels.")
    difference, largest = np.abs(answer - logits).max(), np.abs(logits).max()
    if not difference <= MAX_DIFFERENCE * largest:  # also for NaN
        raise ModelError(
            f"{folder} gives other logits than the original, by {difference:.1e} of {largest:.1e}."
        )
    if "input.size" in found.said | asked.said:
        return ""
    file = folder / description.FILE
    file.write_text(file.read_text("utf-8") + FILL_IN, "utf-8")
    return f"Enter in {file} how photos were prepared."
