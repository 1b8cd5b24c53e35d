"""Programs of torch.export, and packages of AOTInductor, which are native code: ``.pt2`` files."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from torch import Tensor
from torch.export.pt2_archive._package import load_pt2  # torch.export.load only logs its errors

from predictor.errors import ModelError
from predictor.models.description import value_of
from predictor.models.program import FoundProgram, Program, record
from predictor.models.scorer import AOTINDUCTOR, EXPORTED
from predictor.models.sources import Request

# With one of these, a program may do with another photo what it did not do with the first one.
BRANCHES = ("higher_order", "as_strided")


def find(request: Request) -> FoundProgram:
    """Return an exported program; it is not loaded.

    Raises:
        ModelError: it is native code, and the operator does not say that it can be trusted.
    """
    path = Path(request.target)
    with ZipFile(path) as archive:
        native = any("data/aotinductor/" in name for name in archive.namelist())
    if not native:
        return FoundProgram(path, EXPORTED, request, partial(_shape, path), partial(_open, path))
    if not value_of(request.said, "trust"):
        raise ModelError(
            f"{path} is native code, which can do anything on this machine. If you trust who made"
            " it, write in model.toml beside it: trust = true"
        )
    precision = request.settings.precision.replace("auto", "float32")
    open_native = partial(_open_native, path, getattr(torch, precision))
    return FoundProgram(path, AOTINDUCTOR, request, lambda: None, open_native)


def _shape(path: Path) -> list[int | None] | None:
    """Return the shape of the input; None for what is not fixed."""
    graph = json.loads(record(path, "/models/model.json") or "")["graph_module"]["graph"]
    name = graph["inputs"][-1]["as_tensor"]["name"]
    return [size.get("as_int") for size in graph["tensor_values"][name]["sizes"]]


def _open(path: Path, device: torch.device, _lanes: int, channels_last: bool) -> Program:
    with path.open("rb") as file:
        program = load_pt2(file).exported_programs["model"]
    _, named = program.call_spec.in_spec.unflatten([None])  # raises unless there is one input
    (name,) = program.graph_signature.user_inputs
    taken = next(node.meta["val"] for node in program.graph.nodes if node.name == name)
    if taken.device.type != device.type:
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    channels_last &= not any(word in program.graph_module.code for word in BRANCHES)
    module = program.module()
    if channels_last:
        module.to(memory_format=torch.channels_last)
    parameters = sum(one.numel() for one in module.parameters())
    run = (lambda batch: module(**dict.fromkeys(named, batch))) if named else module
    return Program(run, taken.dtype, parameters, channels_last)


def _open_native(
    path: Path, dtype: torch.dtype, device: torch.device, lanes: int, _channels_last: bool
) -> Program:
    # Without these checks, native code reads beyond the memory of an image of another size.
    os.environ["AOTI_RUNTIME_CHECK_INPUTS"] = "1"
    package = torch._inductor.aoti_load_package(path, num_runners=lanes)
    if (made_for := package.get_metadata()["AOTI_DEVICE_KEY"]) != device.type:
        raise ValueError(f"it is compiled for {made_for}, and the device is {device}")
    return Program(Native(package), dtype, 0, False)


class Native:
    """Runs native code. If it is compiled for any number of images, it takes at least two."""

    def __init__(self, package: Any) -> None:
        self._package, self._pads = package, False

    def __call__(self, batch: Tensor) -> Any:
        """Return what the package returns; run a single image twice if that is necessary."""
        try:
            if not self._pads or len(batch) > 1:
                return self._package(batch)
        except RuntimeError as error:
            if "too small at 0" not in str(error):
                raise
        self._pads = True
        returned = self._package(batch.expand(2, -1, -1, -1).contiguous())
        return torch.utils._pytree.tree_map(lambda rows: rows[:1], returned)
