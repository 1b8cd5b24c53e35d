"""The functions for Python: classify a photo without a server."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import IO, Any

from predictor.engine.call import all_or_error
from predictor.engine.classifier import Classifier
from predictor.engine.ranking import Prediction
from predictor.errors import PredictorError
from predictor.settings import Settings

Source = bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes]


class BestClass(tuple[str, str]):
    """The pair ``(class_id, class_name)`` of the best class, with more as attributes.

    Attributes:
        class_id: the label's id; with ImageNet the WordNet id, such as ``n02124075``.
        class_name: the label's name.
        class_index: index of the class in the model's output.
        probability: 0 to 1.
    """

    prediction: Prediction

    def __new__(cls, prediction: Prediction) -> BestClass:
        """Make the pair of a prediction."""
        pair = super().__new__(cls, (prediction.class_id, prediction.class_name))
        pair.prediction = prediction
        return pair

    def __getnewargs__(self) -> tuple[Any, ...]:
        """Return the argument with which copies and unpickled pairs are made."""
        return (self.prediction,)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the prediction."""
        if name in Prediction.__dataclass_fields__:
            return getattr(self.prediction, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def get_prediction(image_bytes: Source) -> BestClass:
    """Classify one image with the model that the environment's settings name.

    The model is loaded by the first call.

    Args:
        image_bytes: the bytes of an encoded image (JPEG, PNG, WebP …), a path to one, or a
            file object opened in binary mode.

    Returns:
        ``class_id, class_name``, which are also attributes, like ``class_index`` and
        ``probability``.

    Raises:
        TypeError: ``image_bytes`` is something else.
        OSError: the file cannot be read.
        PredictorError: the model cannot be loaded, or the image cannot be decoded.
    """
    return BestClass(get_predictions(image_bytes, top_k=1)[0])


def get_predictions(image_bytes: Source, top_k: int = 5) -> list[Prediction]:
    """Classify one image as :func:`get_prediction` does.

    Returns:
        The ``top_k`` most probable classes, best first; fewer if the model has fewer.
    """
    data, classifier = _read(image_bytes), _classifier()
    top_k = min(top_k, len(classifier.require_model().labels))
    (predictions,) = all_or_error(classifier.classify([data], top_k))
    return predictions


def _read(source: Source) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        return Path(source).read_bytes()
    data: object = source.read() if callable(getattr(source, "read", None)) else None
    if not isinstance(data, bytes):
        raise TypeError(
            f"image_bytes is {_named(source)}. It must be the bytes of an encoded image, a path,"
            " or a file object opened in binary mode."
        )
    return data


def _named(source: object) -> str:
    is_text_file = hasattr(source, "read") and not hasattr(source, "tobytes")
    kind = f"{type(source).__module__}.{type(source).__qualname__}"
    return f"a file object ({kind}) that returns text" if is_text_file else f"of type {kind}"


class _Loaded:
    """The classifier of this process."""

    lock = threading.Lock()
    classifier: Classifier | None = None
    pid: int | None = None  # of the process that loaded it


def _classifier() -> Classifier:
    """Return this process's classifier. The first call loads it, and later ones wait for it.

    A load that failed is tried again by the next call.
    """
    if _Loaded.pid not in (None, os.getpid()):
        raise PredictorError(
            "This process was forked after its parent had loaded the model, and torch's threads do"
            " not survive a fork. Load the model after the fork, or start the process with"
            ' multiprocessing.get_context("spawn").'
        )
    with _Loaded.lock:
        if _Loaded.classifier is None:
            _Loaded.pid, _Loaded.classifier = os.getpid(), Classifier(Settings.from_env())
        classifier = _Loaded.classifier
    classifier.start()
    try:
        classifier.loading.result()
    except BaseException:
        with _Loaded.lock:
            if _Loaded.classifier is classifier:
                _Loaded.pid = _Loaded.classifier = None
        raise
    return classifier
