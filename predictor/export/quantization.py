"""Static quantisation of ONNX files to int8, and what it costs in right answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from predictor.engine.cpus import available_cpus
from predictor.errors import ExportError
from predictor.export.artefact import Photos, read, served
from predictor.export.carried import prepare
from predictor.export.options import Options
from predictor.export.proof import prove
from predictor.export.subject import Subject
from predictor.images.files import Finder
from predictor.models.loading import load_model
from predictor.models.sources.onnx import Graph
from predictor.models.truth import Truth
from predictor.settings import Settings

OLDEST = 13  # opset that has one scale for each channel
CHECKED = 8  # calibration photos to which the float32 graph must answer as the server does

Judged = list[tuple[str, int | None]]  # photos, and the indices of their classes


def quantise(
    path: Path, subject: Subject, options: Options, tolerance: float, fixed: bool
) -> dict[str, Any]:
    """Replace a float32 ONNX file by its int8 form. Return what that costs, also in its metadata.

    ``fixed``: the graph takes one photo at a time.

    Raises:
        ExportError: a photo cannot be read, or the float32 graph does not answer as the server.
    """
    photos = read(options.calibrate)
    judged: Judged = [(name, None) for name, _ in photos]
    if options.judge:
        judged = [*Truth(Path(options.judge), subject.card.labels).photos(Finder())]
    if not judged:
        raise ExportError(f"{options.judge} has no photos.")
    with served(path) as run:
        proof = prove(run, subject, photos[:CHECKED], tolerance, batches=not fixed)
    if not proof.ok:
        raise ExportError(
            f"The float32 graph of {subject.name} does not answer as the server does: logits differ"
            f" by {proof.difference:.1e} of the largest. {proof.failure}".rstrip()
        )
    _quantise(path, photos)
    notes = _cost(path, subject, judged, photos)
    describe(path, {"int8": notes})
    return notes


def describe(path: Path, texts: dict[str, Any]) -> None:
    """Add values to an ONNX file's metadata as JSON, and remove what ONNX Runtime's tools add.

    They say that the file needs operators of which it has none, and some tools refuse that.
    """
    model = onnx.load(path, load_external_data=False)
    kept = {one.key: one.value for one in model.metadata_props if not one.key.startswith("onnx.")}
    helper.set_model_props(
        model, kept | {key: json.dumps(text, ensure_ascii=False) for key, text in texts.items()}
    )
    used = {"", *(node.domain for node in model.graph.node)}
    for one in [one for one in model.opset_import if one.domain not in used]:
        model.opset_import.remove(one)
    onnx.save(model, path)


class Feeds(CalibrationDataReader):  # type: ignore[misc]  # it has no types
    """Yields each photo as the graph takes it, prepared by the card in its file."""

    def __init__(self, path: Path, photos: Photos) -> None:
        model = load_model(Settings(model=str(path), device="cpu"), available_cpus())
        assert isinstance(model.scorer, Graph)
        feed, card = model.scorer.feed, model.card
        self._feeds = (feed([prepare(photo, card)]) for _, photo in photos)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next photo, or None."""
        return next(self._feeds, None)


def _quantise(path: Path, photos: Photos) -> None:
    parts = [*path.parent.glob(f"{path.name}.*")]  # of large weights
    with TemporaryDirectory(dir=path.parent) as folder:
        ready = Path(folder) / path.name
        quant_pre_process(
            path, ready, save_as_external_data=bool(parts), all_tensors_to_one_file=True,
            external_data_location=f"{path.name}.data",
        )  # fmt: skip
        reader = Feeds(path, photos)
        for one in (path, *parts):
            one.unlink()
        quantize_static(
            ready, path, reader, per_channel=True, reduce_range=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            use_external_data_format=bool(parts),
            extra_options={"TensorQuantOverrides": dict.fromkeys(_depthwise(ready), FULL)},
        )  # fmt: skip


# x86 processors without VNNI add two products of 8 bits in 16 bits. Weights of 8 bits overflow
# there without an error: EfficientNet-Lite0 then has 78 % of 50 photos right instead of 84 %, and
# logits are wrong by 41 % of the largest. Weights of 7 bits cannot overflow (`reduce_range`). The
# kernel for depthwise convolutions adds in 32 bits, and their few weights need all 8: 86 %, 10 %.
FULL = [{"axis": 0, "quant_type": QuantType.QInt8, "reduce_range": False}]


def _depthwise(path: Path) -> Iterator[str]:
    """Yield the names of the weights of convolutions with one channel in each group."""
    graph = onnx.load(path, load_external_data=False).graph
    sizes = {tensor.name: tensor.dims for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in sizes:
            outputs, inputs, *_ = sizes[node.input[1]]
            groups = [one.i for one in node.attribute if one.name == "group"]
            if inputs == 1 and groups == [outputs] and outputs > 1:
                yield node.input[1]


def _cost(path: Path, subject: Subject, judged: Judged, photos: Photos) -> dict[str, Any]:
    """Ask the server's model and the int8 file for the class of each photo, and compare."""
    found, labels = [], subject.card.labels
    with served(path) as run:
        for file, index in judged:
            ((_, data),) = read([file])
            (first,), (second,) = subject.answers([data]).best, run([data]).best
            truth = first if index is None else labels[index]
            found.append((first == second, first == truth, second == truth))
    same, before, after = (100 * float(share) for share in np.mean(found, 0))
    if judged[0][1] is None:
        text = (
            f"{same:.1f} % of the {len(photos)} calibration photos have the same class in int8 and"
            " float32. How many others have it, and which classes are right, is not known."
        )
    else:
        text = (
            f"Of {len(judged)} photos, int8 has {after:.1f} % right and float32 {before:.1f} %;"
            f" {same:.1f} % have the same class in both."
        )
        files = [{Path(one).resolve() for one, _ in some} for some in (judged, photos)]
        if twice := len(files[0] & files[1]):
            text += f" {twice} of them calibrated int8, so that others may lose more."
    return {"int8": text, "lost %": round(before - after, 2), "calibration photos": len(photos)}
