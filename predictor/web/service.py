"""The one way of a request's photos, whatever protocol brought them: timed, counted, left early."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar, cast

from flask import current_app, request

from predictor.engine.classifier import Logits
from predictor.engine.explainer import Explainer, Explanation
from predictor.engine.ranking import Prediction
from predictor.errors import PredictorError, RequestError
from predictor.images.preprocessing import Pixels
from predictor.web.current import current_classifier, current_metrics
from predictor.web.request import ObservedRequest, current_exchange

Answer = TypeVar("Answer")
Image = bytes | Pixels  # a whole file, or pixels that are prepared already


def classify(
    images: Sequence[bytes | RequestError], top_k: int
) -> list[list[Prediction] | PredictorError]:
    """Classify what could be unpacked; the errors keep their places.

    Raises:
        PredictorError: as :meth:`predictor.engine.classifier.Classifier.classify` does.
    """
    exchange, has_left = current_exchange(), cast(ObservedRequest, request).client_has_left
    readable = [image for image in images if not isinstance(image, RequestError)]
    outcomes = current_classifier().classify(readable, top_k, exchange.timings, has_left)
    exchange.class_ids += [o[0].class_id for o in outcomes if not isinstance(o, PredictorError)]
    classified = iter(outcomes)
    return [i if isinstance(i, RequestError) else next(classified) for i in images]


def score(images: Sequence[Image]) -> list[Logits | PredictorError]:
    """The logits of each image, ``(classes,)`` float32; one that fails has its error instead.

    Raises:
        PredictorError: as :meth:`predictor.engine.classifier.Classifier.score` does.
    """
    exchange, has_left = current_exchange(), cast(ObservedRequest, request).client_has_left
    classifier = current_classifier()
    outcomes = classifier.score(images, exchange.timings, has_left)
    labels = classifier.engine().labels
    for outcome in outcomes:
        if not isinstance(outcome, PredictorError):
            exchange.class_ids.append(labels[int(outcome.argmax())].class_id)
    return outcomes


def all_or_error(outcomes: Sequence[Answer | PredictorError]) -> list[Answer]:
    """The answers, for protocols that have no place for an error beside them.

    Raises:
        PredictorError: the first of the errors; of several images, it says which.
    """
    for number, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, PredictorError):
            if len(outcomes) > 1:
                outcome.args = (f"Image {number} of {len(outcomes)}: {outcome}",)
            raise outcome
    return cast(list[Answer], list(outcomes))


def explains() -> bool:
    """Whether explanations are served."""
    return "explainer" in current_app.extensions


@contextmanager
def admit_explanation() -> Iterator[None]:
    """Take a place for the explanation that the request in work asks for.

    Raises:
        NotReady: there is no model yet.
        NoQuietMoment: all places are taken.
    """
    with _explainer().admit(), current_metrics().explanations_in_flight.track_inprogress():
        yield


def explain(image: bytes, class_index: int | None, deadline: float | None = None) -> Explanation:
    """Explain one class of one photo.

    Args:
        image: a whole file.
        class_index: the class; the best one when not given.
        deadline: by the monotonic clock, where it is one of several.

    Raises:
        PredictorError: as :meth:`predictor.engine.explainer.Explainer.explain` does.
    """
    has_left = cast(ObservedRequest, request).client_has_left
    timings = current_exchange().timings
    return _explainer().explain(image, class_index, timings, has_left, deadline)


def _explainer() -> Explainer:
    return cast(Explainer, current_app.extensions["explainer"])
