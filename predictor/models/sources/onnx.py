"""ONNX files, run by ONNX Runtime. A process that serves one needs no torch."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import DTypeLike, NDArray

from predictor.errors import ModelError, NotExplainable
from predictor.images.preprocessing import CHANNELS, Pixels, Preprocessing
from predictor.models.description import Description, carried, describe, value_of
from predictor.models.outputs import pick
from predictor.models.scorer import (
    ONNX,
    QUANTISE,
    Heat,
    Loaded,
    Logits,
    lanes_and_batch,
    warm_up_sizes,
)  # fmt: skip
from predictor.models.sources import Request

log = logging.getLogger(__name__)

EIGHT_BITS = 2, 3  # uint8 and int8 in onnx.proto
CUDA = "CUDAExecutionProvider"
# Forward passes at once share the threads of one session and wait for each other. From so many
# parameters on, half as many passes of twice as many images are faster: VGG16 14.6 images/s instead
# of 12.7, in int8 48 instead of 46, ViT-B/16 11.0 instead of 9.2 without HTTP. Small networks are
# slower then: MobileNetV3 397 instead of 482. ResNet-50 would gain 4 % (2 CPUs, November 2026).
LARGE = 50_000_000
TYPES: dict[str, DTypeLike] = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8
}  # fmt: skip


def find(request: Request) -> FoundGraph:
    """Open an ONNX file and look at its input.

    Raises:
        ModelError: ONNX Runtime cannot open the file, or it does not take images.
    """
    path = Path(request.target)
    session = _open(path, request.settings.device, request.cpus)
    return FoundGraph(path, request, session, _image(session, path))


class Image(NamedTuple):
    """The input of a graph. None: it takes any number."""

    name: str
    dtype: DTypeLike
    batch: int | None
    size: tuple[int | None, int | None]  # height and width
    channels: int
    channels_last: bool

    def check(self, input: Preprocessing, path: Path) -> None:
        """Raise ModelError if the graph does not take what the preprocessing makes."""
        shape = *self.size, self.channels
        if any(own not in (None, one) for own, one in zip(shape, input.shape, strict=True)):
            takes = " × ".join(str(own or "any") for own in shape)
            raise ModelError(
                f"{path} takes images of {takes} (height × width × channels), but the description"
                f" says {' × '.join(map(str, input.shape))}. Change size or channels in [input]."
            )
        if self.dtype == np.uint8 and (input.offset.any() or (input.divisor != 1).any()):
            raise ModelError(
                f"{path} takes whole numbers from 0 to 255 (uint8), so its graph normalises them."
                ' Remove mean and std from the description, and say scale = "0..255" or nothing.'
            )


@dataclass(frozen=True, slots=True)
class FoundGraph:
    """An ONNX file. ONNX Runtime has read all of it, with the weights."""

    path: Path
    request: Request
    session: ort.InferenceSession
    image: Image

    @property
    def name(self) -> str:
        """The file's name."""
        return re.sub(r"\W+", "-", self.path.stem, flags=re.ASCII).strip("-_") or "model"

    @property
    def said(self) -> Description:
        """What the input's shape and type say, and what the metadata says instead."""
        content: dict[str, Any] = {"channels": CHANNELS[self.image.channels]}
        if all(self.image.size):
            content["size"] = list(self.image.size)
        if self.image.dtype == np.uint8:
            content["scale"] = "0..255"
        metadata = self.session.get_modelmeta().custom_metadata_map
        shape = describe({"input": content}, f"{self.path}, input {self.image.name}")
        return shape | carried(metadata.get("predictor"), str(self.path))

    def load(self, input: Preprocessing, classes: int | None) -> Loaded:
        """Check the preprocessing, and choose the output."""
        settings, threads = self.request.settings, self.request.cpus
        self.image.check(input, self.path)
        select = value_of(self.said | self.request.said, "output.select")
        output = pick({one.name: one for one in self.session.get_outputs()}, select)
        parameters = _parameters(self.path)
        # In a quantised file, most weights are whole numbers of 8 bits, signed or not.
        if sum(parameters[kind] for kind in EIGHT_BITS) > parameters.total() / 2:
            precision = "int8"
        else:
            precision = "float16" if output.type == "tensor(float16)" else "float32"
        if settings.precision not in ("auto", precision):
            raise ModelError(
                f"PREDICTOR_PRECISION is {settings.precision}, but {self.path} was exported in"
                f" {precision}. Remove the setting, or export the network in this precision."
                + f" {QUANTISE}"
                * (settings.precision == "int8")
            )
        on_cpu = CUDA not in self.session.get_providers()
        lanes, most = lanes_and_batch(on_cpu, threads, settings.max_batch_size)
        if lanes > 1 and parameters.total() >= LARGE:
            lanes, most = lanes // 2, settings.max_batch_size or 2 * most
        if self.image.batch:
            most = self.image.batch
            log.info("The batch size of %s is fixed at %d.", self.path, most)
        return Loaded(
            Graph(self.session, self.image, output.name, input, lanes, most, on_cpu),
            weights=str(self.path),
            device="cpu" if on_cpu else "cuda",
            precision=precision,
            threads=threads,
            parameters=parameters.total(),
            platform=ONNX,
        )


class Graph:
    """Runs batches of images through an ONNX graph. Any thread may call it.

    All calls share the threads of one session. A call computes itself what no thread takes, so
    calls at once do not wait for each other.
    """

    explains = False

    def __init__(
        self, session: ort.InferenceSession, image: Image, output: str,
        preprocessing: Preprocessing, lanes: int, max_batch_size: int, on_cpu: bool,
    ) -> None:  # fmt: skip
        self._session, self._image, self._output = session, image, output
        self.preprocessing = preprocessing
        self.lanes, self.max_batch_size = lanes, max_batch_size
        # On the CPU, the probe has run batches before.
        self.warm_up_sizes = {1} if on_cpu else warm_up_sizes(False, lanes, max_batch_size)

    def logits(self, images: Sequence[Pixels], lanes: int = 1) -> Logits:
        """Run the graph on N images ``(height, width, C)``; return ``(N, outputs)`` float32."""
        (returned,) = self._session.run([self._output], self.feed(images))
        logits: Logits = returned[: len(images)].astype(np.float32, copy=False)
        return logits.reshape(logits.shape[:2])  # of (N, outputs, 1, 1)

    def explain(self, *_: Any) -> tuple[Logits, Heat]:
        """Raise NotExplainable."""
        raise NotExplainable(
            "An ONNX file cannot be explained, because ONNX Runtime computes no gradients. Serve"
            " the PyTorch network to get explanations."
        )

    def feed(self, images: Sequence[Pixels]) -> dict[str, NDArray[Any]]:
        """Stack and normalise N images: the graph's input in its layout and type, by its name."""
        return {self._image.name: self._batch(images)}

    def _batch(self, images: Sequence[Pixels]) -> NDArray[Any]:
        image, preprocessing = self._image, self.preprocessing
        height, width, channels = preprocessing.shape
        count = image.batch or len(images)  # black images fill a fixed batch
        first = channels, height, width
        whole = image.dtype == np.uint8 and all(one.dtype == np.uint8 for one in images)
        batch: NDArray[Any] = np.zeros(
            (count, *(preprocessing.shape if image.channels_last else first)),
            np.uint8 if whole else np.float32,
        )
        rows = batch if image.channels_last else batch.transpose(0, 2, 3, 1)
        np.stack(images, out=rows[: len(images)], casting="unsafe")
        if image.dtype == np.uint8:
            return batch.round().clip(0, 255).astype(np.uint8)
        offset, divisor = preprocessing.offset, preprocessing.divisor
        for channel in range(channels):  # in one step, NumPy would loop over 3 numbers at a time
            rows[..., channel] -= offset[channel]
            rows[..., channel] /= divisor[channel]
        return batch.astype(image.dtype, copy=False)


def _open(path: Path, device: str, threads: int) -> ort.InferenceSession:
    options, providers = ort.SessionOptions(), _providers(device)
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what goes wrong is also raised
    # Threads that spin take the processors from the threads that decode photos.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # See prepare_thread in predictor.models.network. The first session of a process also sets this
    # in the thread that opens it, which starts the inference threads; they inherit it.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    try:
        session = ort.InferenceSession(path, options, providers)
    except Exception as error:  # its errors have no other base class
        raise ModelError(
            f"ONNX Runtime {ort.__version__} cannot open {path}: {_reason(error)}. Copy it again"
            " with all its files, update onnxruntime, or export it with a lower opset_version."
        ) from error
    if device.startswith("cuda") and CUDA not in session.get_providers():
        raise ModelError(f"PREDICTOR_DEVICE={device!r} cannot be used: ONNX Runtime has no CUDA.")
    return session


def _providers(device: str) -> list[Any]:
    """Return what ONNX Runtime calls the device, and the CPU for what the device cannot do."""
    match = re.fullmatch(r"cuda(:(\d+))?|auto|cpu", device)
    has_cuda = CUDA in ort.get_available_providers()
    if match is None or (device.startswith("cuda") and not has_cuda):
        raise ModelError(
            f"PREDICTOR_DEVICE is {device!r}; for an ONNX file it must be auto or cpu, or cuda if"
            " the package onnxruntime-gpu is installed in place of onnxruntime."
        )
    gpu = [(CUDA, {"device_id": match[2] or "0"})] if device != "cpu" and has_cuda else []
    return [*gpu, "CPUExecutionProvider"]


def _reason(error: Exception) -> str:
    """Return what ONNX Runtime says, without its prefixes and the place in its code."""
    prefixes = r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .+? failed:"
    places = r"\S+\.(cc|h):\d+ (.*[&lt]\) )?"
    return re.sub(f"{prefixes}|{places}", "", str(error)).strip().rstrip(".")


def _image(session: ort.InferenceSession, path: Path) -> Image:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(one.name for one in inputs)
        raise ModelError(f"{path} has {len(inputs)} inputs, {names}; it must have one, the image.")
    (given,) = inputs
    shape = [length if isinstance(length, int) else None for length in given.shape]
    axes = [axis for axis in (1, 3) if len(shape) == 4 and shape[axis] in CHANNELS]
    if len(axes) != 1 or given.type not in TYPES:
        raise ModelError(
            f"{path} takes {given.type} {given.shape}; its input must be float, float16 or uint8,"
            " (N, C, height, width) or (N, height, width, C) with 1, 3 or 4 channels C."
        )
    batch, one, two, three = shape
    last = axes == [3]
    channels, size = (three, (one, two)) if last else (one, (two, three))
    return Image(given.name, TYPES[given.type], batch, size, channels or 0, last)


def _parameters(path: Path) -> Counter[int]:
    """Count the numbers in the initializers, by their type: one of EIGHT_BITS, or another number.

    The keys are those of onnx.proto, in octal.
    """
    found = Counter[int]()
    with path.open("rb") as file:
        for graph_key, graph in _fields(file, path.stat().st_size):
            for key, tensor in _fields(file, graph) if graph_key == 0o72 else ():
                if key == 0o52:
                    values = [*_fields(file, tensor)]
                    kind = next((value for key, value in values if key == 0o20), 0)
                    found[kind] += prod(value for key, value in values if key == 0o10)
    return found


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Yield the fields of the protobuf message before ``end``: 8 × number + type, and the value.

    Of a field with a length, which is type 2, the value is its end.
    """
    while file.tell() < end:
        key, value = _varint(file), _varint(file)
        has_length = key & 7 == 2
        after = min(file.tell() + value * has_length, end)
        yield key, after if has_length else value
        file.seek(after)


def _varint(file: BinaryIO) -> int:
    (byte,) = file.read(1)
    return byte if byte < 128 else byte - 128 + (_varint(file) << 7)
