"""Your own network: what a function or class in a file or a package returns."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from predictor.errors import ModelError, WeightsError
from predictor.models.building import build_random
from predictor.models.description import Description, describe, value_of
from predictor.models.networks import FoundNetwork, ModelSpec
from predictor.models.sources import Request
from predictor.models.transforms import read_transform
from predictor.models.values import WORDS

INPUT = {"input.size", "input.resize", "input.mean", "input.std"}


def find(request: Request) -> FoundNetwork:
    """Find ``net.py:build`` or ``package.module:Net``. This imports it, which runs its code.

    ``transform`` and ``labels`` beside the function or class describe the model.

    Raises:
        ModelError: there is no such function or class, or its module cannot be imported.
    """
    place, _, name = request.target.rpartition(":")
    is_file = place.endswith(".py")
    path = Path(place).expanduser().absolute()
    with _running(request.target, path.parent if is_file else Path.cwd(), "to import it"):
        module = _import_file(path) if is_file else importlib.import_module(place)
    make = getattr(module, name, None)
    if not callable(make) or isinstance(make, nn.Module):
        found = f"no {name}" if make is None else f"{name}, but it is a {type(make).__name__}"
        raise ModelError(
            f"{place} has {found}. Name a function or class that returns a torch.nn.Module, such"
            f" as {place}:build."
        )
    arguments = value_of(request.said, "arguments") or {}
    build = Build(request.target, make, arguments, Path(str(module.__file__)).parent)
    spec = ModelSpec(
        name=re.sub(r"[^\w.-]", "_", path.stem if is_file else name),
        build=build,
        said=_said(module, described=request.said.keys() >= INPUT),
        filled=build.filled,
        origin=request.target,
        proven=False,
    )
    return FoundNetwork(spec, request)


@dataclass(frozen=True, slots=True)
class Build:
    """Calls the operator's function or class."""

    target: str  # for messages
    make: Any
    arguments: dict[str, Any]
    folder: Path

    def __call__(self, _classes: int) -> nn.Module:
        """Return the network. Only ``arguments`` says how many classes it has.

        Raises:
            ModelError: the code failed, or returned something else.
        """
        with _running(self.target, self.folder, f"with {self.arguments or 'no arguments'}"):
            network = self.make(**self.arguments)
        if not isinstance(network, nn.Module):
            kind = type(network).__name__
            raise ModelError(f"{self.target} returned a {kind}; it must return a torch.nn.Module.")
        return network

    def filled(self) -> nn.Module:
        """Return the network with the weights that the code itself loads.

        It is built twice: weights that differ then are random, so the code has not loaded them.

        Raises:
            WeightsError: there are random weights.
        """
        network, other = (build_random(self, 0, seed) for seed in (0, 1))
        pairs = zip(_tensors(network), _tensors(other), strict=True)
        random = [name for (name, one), (_, two) in pairs if not torch.equal(one, two)]
        if random:
            raise WeightsError(
                f"{self.target} builds random weights ({random[0]} and {len(random) - 1} more)."
                " Set PREDICTOR_WEIGHTS to the file of its weights, or to random to try it."
            )
        return network


def _tensors(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return itertools.chain(network.named_parameters(), network.named_buffers())


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ModelError(f"There is no file {path}.")
    spec = importlib.util.spec_from_file_location(f"own_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _running(target: str, folder: Path, doing: str) -> Iterator[None]:
    """Let the operator's code import from its folder. Name the line that raises an exception."""
    sys.path.insert(0, str(folder))
    try:
        yield
    except ModelError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"{target} failed ({_line(error, folder) or doing}): {type(error).__name__}: {error}"
        ) from error
    finally:
        # The code may import again while the model runs. The app's own modules then come first.
        sys.path.remove(str(folder))
        sys.path.append(str(folder))


def _line(error: BaseException, folder: Path) -> str:
    """Return the last line of the operator's code, or of a library if there is none."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    frames = [
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and not frame.filename.startswith("<frozen")
    ]
    own = [f for f in frames if Path(f[0]).is_relative_to(folder) and "site-packages" not in f[0]]
    return "{}, line {}".format(*(own or frames)[-1]) if frames else ""


def _said(module: ModuleType, described: bool) -> Description:
    """Return what ``transform`` and ``labels`` say. ``described``: the operator says the input."""
    file, content = str(module.__file__), dict[str, Any]()
    transform, labels = getattr(module, "transform", None), getattr(module, "labels", None)
    if transform is not None and not described:
        content["input"] = read_transform(transform, f"{file}: transform").as_json()
    if isinstance(labels, str) and labels not in WORDS:
        labels = str(Path(file).parent / labels)
    if labels is not None:
        content["labels"] = list(labels) if isinstance(labels, tuple) else labels
    return describe(content, file)
