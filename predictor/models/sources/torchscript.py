"""TorchScript files, as ``torch.jit.save`` writes them."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch

from predictor.models.program import FoundProgram, Program, record
from predictor.models.scorer import TORCHSCRIPT
from predictor.models.sources import Request

# With one of these, a program may do with another photo what it did not do with the first one.
BRANCHES = ("prim::If", "prim::Loop", "aten::as_strided")


def find(request: Request) -> FoundProgram:
    """Return a TorchScript file; it is not loaded."""
    path = Path(request.target)
    return FoundProgram(path, TORCHSCRIPT, request, partial(_shape, path), partial(_open, path))


def _shape(path: Path) -> list[int | None] | None:
    """Return the shape of the input that was traced, if the file has it."""
    if record(path, "/traced_inputs.pkl") is None:
        return None
    _, given, *_ = _load(path, torch.device("cpu"), True).graph.inputs()
    sizes: list[int | None] | None = given.type().sizes()  # type: ignore[attr-defined]
    return sizes


def _open(path: Path, device: torch.device, _lanes: int, channels_last: bool) -> Program:
    """Load the program. It is not frozen: an error in a frozen one crashes torch 2.15."""
    module = _load(path, device).eval()
    graph: Any = module.inlined_graph
    channels_last &= not any(word in str(graph) for word in BRANCHES)
    tensors = [*module.parameters()]
    if not tensors:  # it was frozen before it was saved
        nodes = graph.findAllNodes("prim::Constant")
        tensors = [node.t("value") for node in nodes if "Tensor" in str(node.output().type())]
    dtype = next((one.dtype for one in tensors if one.is_floating_point()), torch.float32)
    if channels_last:
        module.to(memory_format=torch.channels_last)
    return Program(module, dtype, sum(one.numel() for one in tensors), channels_last)


def _load(path: Path, device: torch.device, shapes: bool = False) -> torch.jit.ScriptModule:
    warnings.filterwarnings("ignore", module="code/__torch__")  # of programs, at every call
    with warnings.catch_warnings():  # torch prefers torch.export, but these files exist
        warnings.simplefilter("ignore", FutureWarning)
        module: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
            path, device, _restore_shapes=shapes
        )
    return module
