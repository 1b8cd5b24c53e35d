"""Bytes → why the model thinks so: where in the photo the evidence for a class lies.

An explanation takes what predictions leave. One is computed at a time, on a thread of its own,
and it stands aside for every prediction: it begins, and goes on from layer to layer, only while
no request for a prediction is in work.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from predictor.engine.admission import Places
from predictor.engine.batching import Batcher, wait_for
from predictor.engine.classifier import Classifier
from predictor.engine.ranking import Prediction, rank
from predictor.engine.timings import Timings
from predictor.errors import (
    BadRequest,
    ClientGone,
    DeadlineExceeded,
    InferenceFailed,
    NoQuietMoment,
    Overloaded,
    PredictorError,
    inference_failure,
)
from predictor.images.decoding import decode

log = logging.getLogger(__name__)

# How long there must have been no prediction in work. A client that asks one photo after the
# other leaves gaps of about a millisecond, into which a layer of VGG16 (up to 25 ms) does not fit.
QUIET_S = 0.05
# How soon an explanation that nobody waits for any more is given up.
POLL_S = 0.25
LONGEST = 1024  # pixels of the photo that is kept to paint on: shown on a page it is no larger


class Box(NamedTuple):
    """A part of a photo; each side from 0 to 1 of the photo's width or height."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """A class and how much each place in the photo speaks for it."""

    prediction: Prediction
    heat: NDArray[np.float32]  # (h, w), from 0 to 1; over the box
    box: Box  # what the model saw of the photo
    photo: Image.Image  # upright, RGB; at most LONGEST pixels wide and high


@dataclass(slots=True)
class _Task:
    data: bytes
    class_index: int | None
    deadline: float  # by the monotonic clock
    given_up: bool = False


class Explainer:
    """Explains a classifier's answers, one after the other; any thread may call it."""

    def __init__(self, classifier: Classifier) -> None:
        """Prepare; the thread begins with the first explanation."""
        self.places = Places(classifier.settings.max_explanations)
        self._classifier = classifier
        self._starting = threading.Lock()
        self._batcher: Batcher[_Task, Explanation] | None = None
        self._closed = False
        classifier.on_close.append(self.close)

    def close(self) -> None:
        """End the thread, which would hold on to the model; nothing is explained any more."""
        with self._starting:
            self._closed = True
            if self._batcher is not None:
                self._batcher.close()

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Take a place for one explanation.

        Raises:
            NotReady: there is no model yet.
            NoQuietMoment: all places are taken.
        """
        self._classifier.engine()
        with ExitStack() as stack:
            try:
                stack.enter_context(self.places.take())
            except Overloaded:
                raise NoQuietMoment("Others wait for an explanation already.") from None
            yield

    def explain(
        self,
        data: bytes,
        class_index: int | None = None,
        timings: Timings | None = None,
        has_left: Callable[[], bool] = lambda: False,
        deadline: float | None = None,
    ) -> Explanation:
        """Explain why an encoded image would be taken for a class.

        Args:
            data: a whole file, as :func:`predictor.images.decoding.decode` reads it.
            class_index: the class; the best one when not given.
            timings: to be told how long it took.
            has_left: whether the caller has gone; asked now and then.
            deadline: by the monotonic clock; the settings' time from now when not given.

        Raises:
            RequestError: there is no such class, the image cannot be read, the model cannot be
                explained, or the caller left.
            ServiceError: the model is not there, failed, or there was no quiet moment for it.
        """
        classes = len(self._classifier.engine().labels)
        if class_index is not None and not 0 <= class_index < classes:
            raise BadRequest(f"class_index is {class_index}; it can be 0 to {classes - 1}.")
        if deadline is None:
            deadline = monotonic() + self._classifier.settings.request_timeout_s
        task = _Task(data, class_index, deadline)
        with (timings or Timings()).measure("explain"):
            return self._run(task, has_left)

    def _run(self, task: _Task, has_left: Callable[[], bool]) -> Explanation:
        (future,) = self._worker().submit([task])
        try:
            wait_for(future, task.deadline, has_left)
            return future.result()
        except DeadlineExceeded:
            raise NoQuietMoment("There was no quiet moment in which to finish it.") from None
        except PredictorError:
            raise
        except Exception as error:
            log.exception("The explanation failed")
            raise inference_failure(error) from error
        finally:
            future.cancel()
            task.given_up = True

    def _worker(self) -> Batcher[_Task, Explanation]:
        """The thread, begun with the first explanation, and anew should it have ended."""
        with self._starting:
            if self._closed:
                raise InferenceFailed("The model has stopped; the service must be restarted.")
            if self._batcher is None or not self._batcher.alive:
                most = self.places.count
                self._batcher = Batcher(self._explain_all, max_batch_size=1, max_queue=most)
            return self._batcher

    def _explain_all(self, tasks: list[_Task], _shares: int) -> list[Explanation]:
        return [self._explain(task) for task in tasks]

    def _explain(self, task: _Task) -> Explanation:
        def stand_aside() -> None:
            while not self._classifier.places.wait_for_quiet(QUIET_S, POLL_S):
                if task.given_up:
                    raise ClientGone("Nobody waits for the explanation.")
                if monotonic() > task.deadline:
                    raise DeadlineExceeded("There was no quiet moment.")

        stand_aside()
        classifier = self._classifier
        engine, settings = classifier.engine(), classifier.settings
        preprocess = engine.model.preprocessing
        photo = decode(task.data, settings.max_pixels, classifier.enough_pixels)
        logits, heat = engine.model.explain(preprocess(photo), task.class_index, stand_aside)
        ranked = rank(logits, engine.labels, len(engine.labels))
        index = ranked[0].class_index if task.class_index is None else task.class_index
        prediction = next(p for p in ranked if p.class_index == index)
        box = Box(*np.divide(preprocess.seen(photo.size), photo.size * 2).tolist())
        photo.thumbnail((LONGEST, LONGEST))
        return Explanation(prediction, heat, box, photo)
