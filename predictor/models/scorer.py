"""The interface of a loaded model to the engine. It does not depend on torch."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from predictor.images.preprocessing import Pixels, Preprocessing
from predictor.models.card import Card
from predictor.models.description import Description
from predictor.models.labels import Label
from predictor.models.outputs import Logits as Logits

Heat = NDArray[np.float32]
Evidence = Callable[[Logits], Logits]  # ``(outputs,)`` logits → how much each output counts

RANDOM = "random"  # the value of PREDICTOR_WEIGHTS for untrained weights
# What runs a model, in Triton's words. Triton has none for EAGER and EXPORTED: a network in Python,
# and a program of torch.export that is not compiled.
EAGER, EXPORTED = "pytorch_eager", "pytorch_export"
TORCHSCRIPT, AOTINDUCTOR, ONNX = "pytorch_libtorch", "torch_aoti", "onnxruntime_onnx"

QUANTISE = (
    "The server never quantises. For int8, serve the file that this command writes: predictor"
    " export onnx --int8 --calibrate PHOTOS"
)

# A forward pass of VGG16 in float32 holds 30 to 45 MB of activations per image, so a machine with
# many processors should not run one pass on each processor. More than two lanes were not measured.
MAX_LANES = 4
# Measured with VGG16 in float32, two passes at once on two processors. Batches of 2: 6.9 images/s
# and 129 MB of activations. Batches of 4: 6.5 images/s and 332 MB. 32 on a GPU was not measured.
CPU_BATCH, CUDA_BATCH = 2, 32


class Scorer(Protocol):
    """What the engine calls; :class:`predictor.models.network.Model` is one."""

    preprocessing: Preprocessing  # turns a photo into the pixels that the model takes
    lanes: int  # number of parallel forward passes, each on a part of the processors
    max_batch_size: int  # maximum number of images in one forward pass
    warm_up_sizes: set[int]  # batch sizes to run once before the first request
    explains: bool  # False: ``explain`` always raises NotExplainable

    def logits(self, images: Sequence[Pixels], lanes: int) -> Logits:
        """Run N images on a number of lanes; return ``(N, outputs)`` float32 logits."""

    def explain(
        self, image: NDArray[np.uint8], evidence: Evidence, pause: Callable[[], None]
    ) -> tuple[Logits, Heat]:
        """Run one image, uint8 as ``preprocessing`` makes it, and explain its answer.

        ``evidence`` says how each output counts for the class in question. ``pause`` is called
        before each layer, and returns when the layer may run. Returns ``(outputs,)`` float32
        logits, and ``(h, w)`` float32 heat, 0 to 1.

        Raises:
            NotExplainable: the model has no feature maps.
        """


@dataclass(frozen=True, slots=True)
class Loaded:
    """A scorer, and what only its source knows about it."""

    scorer: Scorer
    weights: str  # a path, or ``random``
    device: str
    precision: str
    threads: int  # of one forward pass on the CPU
    parameters: int
    outputs: int | None = None  # numbers per image; None: the model has to be tried first
    platform: str = EAGER


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What clients can read about the loaded model."""

    name: str
    weights: str  # a path, or ``random``
    device: str
    precision: str
    threads: int  # of one forward pass on the CPU
    parameters: int
    classes: int
    outputs: int  # numbers for each photo: 1 for two classes, otherwise as many as classes
    labels: str  # who names the classes
    stands_in_for: str | None = None  # the model whose weights could not be downloaded
    platform: str = EAGER

    @property
    def backend(self) -> str:
        """Triton's backend for the platform."""
        return "onnxruntime" if self.platform == ONNX else "pytorch"

    @property
    def notice(self) -> str | None:
        """A warning to show with every answer, or None."""
        if self.stands_in_for is not None:
            return (
                f"{self.name} stands in for {self.stands_in_for}, whose weights are not on this"
                " machine and could not be downloaded."
            )
        if self.weights == RANDOM:
            return "The weights are random: every answer is meaningless."
        return None

    def public(self) -> dict[str, Any]:
        """Return the fields for clients, with file names instead of paths."""
        names = {key: Path(getattr(self, key)).name for key in ("weights", "labels")}
        return asdict(self) | names


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A loaded model with its description."""

    scorer: Scorer
    info: ModelInfo
    card: Card
    said: Description = field(default_factory=dict)  # what was said about it, and by whom

    @property
    def labels(self) -> tuple[Label, ...]:
        """The classes, in the order of the card."""
        return self.card.labels

    def public(self) -> dict[str, Any]:
        """Return what clients can read: also what the model takes, and how it answers."""
        return self.info.public() | {
            "input": self.card.input.as_json(),
            "output": self.card.output.as_json(),
            "max_batch_size": self.scorer.max_batch_size,
        }


def lanes_and_batch(on_cpu: bool, threads: int, chosen: int | None) -> tuple[int, int]:
    """Return the forward passes at once, and the images in each; ``chosen`` by a setting."""
    lanes = min(threads, MAX_LANES) if on_cpu else 1
    return lanes, chosen or (CPU_BATCH if on_cpu else CUDA_BATCH)


def warm_up_sizes(on_cpu: bool, lanes: int, max_batch_size: int) -> set[int]:
    """Return the batch sizes to run before the first request.

    On the CPU: one image, one per lane and a full batch. On a GPU: all powers of two and a full
    batch, because CUDA chooses kernels by the batch size and loads a kernel at its first use.
    """
    if on_cpu:
        return {1, lanes, max_batch_size}
    return {min(2**power, max_batch_size) for power in range(max_batch_size.bit_length() + 1)}
