"""The public functions: classify an image from Python, and serve a network in memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from predictor.engine.call import all_or_error
from predictor.engine.classifier import Classifier
from predictor.engine.ranking import Prediction
from predictor.errors import PredictorError
from predictor.settings import Settings
from predictor.store.folder import default_model

if TYPE_CHECKING:
    from flask import Flask
    from torch.nn import Module

Source = bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes]


class BestClass(tuple[str, str]):
    """The pair ``(class_id, class_name)`` of an image's best class, with attributes."""

    class_id: str  # the label's id; with ImageNet the WordNet id, such as ``n02124075``
    class_name: str
    class_index: int  # position in the model's output
    probability: float  # 0 to 1

    def __new__(cls, prediction: Prediction) -> Self:
        """Make the pair from a prediction."""
        pair = super().__new__(cls, (prediction.class_id, prediction.class_name))
        pair.class_id, pair.class_name = pair
        pair.class_index, pair.probability = prediction.class_index, prediction.probability
        return pair

    def __getnewargs__(self) -> tuple[Any, ...]:
        """Return the arguments with which ``copy`` and ``pickle`` make the pair again."""
        return (Prediction(self.class_index, *self, self.probability),)


def get_prediction(image_bytes: Source) -> BestClass:
    """Classify one image with the model that the ``PREDICTOR_`` environment variables name.

    The first call loads the model.

    Args:
        image_bytes: the bytes of an encoded image (JPEG, PNG, WebP …), the path of an image
            file, or a file opened in binary mode.

    Returns:
        The pair ``class_id, class_name``, with all attributes of :class:`BestClass`.

    Raises:
        TypeError: ``image_bytes`` is of another type.
        OSError: the file cannot be read.
        PredictorError: the model cannot be loaded, or the image cannot be decoded.
    """
    return BestClass(get_predictions(image_bytes, top_k=1)[0])


def get_predictions(image_bytes: Source, top_k: int = 5) -> list[Prediction]:
    """Classify one image as :func:`get_prediction` does.

    Returns:
        The ``top_k`` most probable classes, best first; all classes if the model has fewer.
    """
    if not hasattr(top_k, "__index__"):  # NumPy's integers have it
        raise TypeError(f"top_k is {top_k!r}; it must be a whole number.")
    data = _read(image_bytes)
    (predictions,) = all_or_error(shared.get().classify([data], top_k))
    return predictions


def create_app(
    model: Module,
    labels: Sequence[str] | str | None = None,
    transform: Any = None,
    settings: Settings | None = None,
) -> Flask:
    """Build the app around a network in memory, as a notebook has it after its training.

    The app serves a copy of the network, made by this call, in eval mode, in float32, and on the
    device of ``PREDICTOR_DEVICE``. The network itself is not changed, and may be trained further.

    Args:
        model: takes ``(N, C, H, W)`` float32, and returns ``(N, outputs)`` logits.
        labels: the names of the classes in class-index order, or the path of a file of them; None:
            those of the settings, or ``class 0``, ``class 1``, ….
        transform: torchvision's transform of the validation: a Compose of Resize, CenterCrop,
            ToTensor and Normalize, or the transforms() of published weights. None: the settings
            describe the input.
        settings: None reads the ``PREDICTOR_`` environment variables.

    Raises:
        PredictorError: the model, labels or transform cannot be used; the message says why.
    """
    from predictor.models.sources.memory import loader
    from predictor.store.single import single
    from predictor.web import create_app as create_web_app

    settings = settings or Settings.from_env()
    load = loader(model, labels, transform, settings)
    return create_web_app(settings, single(settings, Classifier(settings, load)))


def _read(source: Source) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        return Path(source).read_bytes()
    read = getattr(source, "read", None)
    data: object = read() if callable(read) else None
    if isinstance(data, bytes):
        return data
    of_type = f"an object of type {type(source).__name__}"
    given = "a file opened in text mode" if isinstance(data, str) else of_type
    raise TypeError(
        f"image_bytes is {given}. It must be the bytes of an encoded image, a path, or a file"
        " opened in binary mode."
    )


class SharedClassifier:
    """One classifier for all threads of this process, loaded when it is first needed."""

    def __init__(
        self,
        make: Callable[[], Classifier] = lambda: Classifier(default_model(Settings.from_env())),
    ) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._classifier: Classifier | None = None
        self._pid = 0  # id of the process that made the classifier

    def get(self) -> Classifier:
        """Load the model if it is not loaded, and return the classifier. Retry a failed load.

        Raises:
            PredictorError: loading failed, or this process was forked after loading had begun.
        """
        if self._pid not in (0, os.getpid()):
            raise PredictorError(
                "This process was forked after its parent had begun to load the model. torch's"
                " threads do not survive a fork. Call get_prediction only in the forked processes,"
                ' or start them with multiprocessing.get_context("spawn").'
            )
        with self._lock:
            if self._classifier is None or _has_failed(self._classifier):
                self._classifier, self._pid = self._make(), os.getpid()
            classifier = self._classifier
        classifier.start()
        classifier.loading.result()
        return classifier


def _has_failed(classifier: Classifier) -> bool:
    return classifier.loading.done() and classifier.loading.exception() is not None


shared = SharedClassifier()
