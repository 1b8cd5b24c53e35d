"""ONNX, for ONNX Runtime and for the tools of other processors."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import onnxscript
import torch
from torch import Tensor, nn

from predictor.errors import ExportError
from predictor.export import quantization
from predictor.export.artefact import Run, quiet, served
from predictor.export.options import Options
from predictor.export.subject import Subject, one_graph
from predictor.images.preprocessing import Preprocessing
from predictor.models.card import Card

TOLERANCE = 1e-3
FILE = "model.onnx"
NEEDS = onnxruntime, onnxscript  # torch and the proof import them later
# Bytes of weights from which they lie in a second file. Protobuf refuses files of 2 GB.
LARGE = 1_500_000_000
# torch's exporter writes no older operators. Asked for them, it logs a failed conversion and keeps
# 18. Its predecessor, which traces the network, still writes opset 7 to 17.
OLDEST = 18


def write(subject: Subject, folder: Path, options: Options) -> dict[str, Any]:
    """Write ``model.onnx`` with the description in it. Return the opset, and what int8 costs.

    Raises:
        ExportError: the options do not fit together, or the network cannot be a graph.
    """
    _check(options)
    path = folder / FILE
    fixed = options.static or not subject.batchable
    with quiet():
        _export(subject, path, options, fixed)
    card = _card(subject.card, options)
    quantization.describe(path, {"predictor": card.as_json()})
    onnx.checker.check_model(path, full_check=True)
    (opset,) = (one.version for one in onnx.load(path, load_external_data=False).opset_import)
    if options.opset not in (None, opset):
        raise ExportError(f"{subject.name} cannot be written with opset {options.opset}.")
    notes = {"opset": opset, "batch": "1" if fixed else "any"}
    if options.int8:
        notes |= quantization.quantise(path, subject, options, TOLERANCE, fixed)
        onnx.checker.check_model(path, full_check=True)
    return notes


def _check(options: Options) -> None:
    if options.int8 and not options.calibrate:
        raise ExportError("--int8 needs --calibrate PHOTOS, like those that will be classified.")
    if options.int8 and (options.opset or OLDEST) < quantization.OLDEST:
        raise ExportError(f"--int8 needs opset {quantization.OLDEST} or a later one.")
    if not options.int8 and (options.calibrate or options.judge):
        raise ExportError("--calibrate and --judge are for --int8. Add --int8, or remove them.")


def _card(card: Card, options: Options) -> Card:
    """Return the card of the graph: one that takes uint8 normalises the pixels itself."""
    if options.input != "uint8":
        return card
    channels = len(card.input.channels)
    pixels = replace(card.input, scale="0..255", mean=(0.0,) * channels, std=(1.0,) * channels)
    return replace(card, input=pixels)


class Pixels(nn.Module):
    """A network that normalises pixels itself: ``(N, height, width, C)`` uint8 → its outputs."""

    offset: Tensor
    divisor: Tensor

    def __init__(self, network: nn.Module, input: Preprocessing) -> None:
        """Wrap a network that takes normalised images."""
        super().__init__()
        self.network = network
        self.register_buffer("offset", torch.from_numpy(input.offset))
        self.register_buffer("divisor", torch.from_numpy(input.divisor))

    def forward(self, pixels: Tensor) -> Any:
        """Normalise the pixels, and run the network."""
        images = (pixels.float() - self.offset) / self.divisor
        return self.network(images.permute(0, 3, 1, 2))


def _export(subject: Subject, path: Path, options: Options, fixed: bool) -> None:
    """Write the graph. ``fixed``: for one photo at a time, instead of any number."""
    network, example = subject.network, subject.example(1 if fixed else 2)
    if options.input == "uint8":
        network = Pixels(network, subject.card.input)
        example = torch.zeros(len(example), *subject.card.input.shape, dtype=torch.uint8)
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    names |= {"opset_version": options.opset, "verbose": False}
    batch = {0: "batch"}
    with one_graph(subject, "written as ONNX"):
        # Also before the predecessor: it would trace the steps of one photo, whatever they are.
        program = torch.export.export(
            network, (example,), dynamic_shapes=None if fixed else ({0: torch.export.Dim("batch")},)
        )
        if options.opset is not None and options.opset < OLDEST:
            axes = {} if fixed else {"images": batch, "logits": batch}
            torch.onnx.export(network, (example,), path, dynamo=False, dynamic_axes=axes, **names)
            return
        shapes = None if fixed else (batch,)
        graph = torch.onnx.export(program, dynamo=True, dynamic_shapes=shapes, **names)
    assert graph is not None
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    graph.save(path, external_data=size > LARGE)


def runtime(folder: Path, options: Options) -> AbstractContextManager[Run]:
    """Run the graph with ONNX Runtime."""
    return served(folder / FILE)


def readme(subject: Subject, options: Options) -> str:
    """Say how to serve the graph, and what it takes."""
    high, wide, channels = subject.card.input.shape
    takes = f"normalised pixels, float32 `(N, {channels}, {high}, {wide})`"
    if options.input == "uint8":
        takes = f"pixels from 0 to 255, uint8 `(N, {high}, {wide}, {channels})`"
    return (
        "Serve it, without torch: `pip install 'photo-predictor[onnx]'`, then"
        f" `PREDICTOR_MODEL={FILE} predictor serve`.\n\nThe input `images` takes {takes}; the"
        " output `logits` has a number for each class. The metadata `predictor` are the labels and"
        " the preprocessing as JSON"
        + ", and `int8` what the quantisation costs" * options.int8
        + "."
    )
