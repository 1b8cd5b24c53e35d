"""Encoded image → explanation: which parts of the photo support a class.

Predictions have priority. One explanation is computed at a time, on a thread of its own. Before an
explanation begins, and before each layer, it waits until no prediction request is in progress.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from predictor.engine.admission import Process
from predictor.engine.batching import Batcher
from predictor.engine.call import Call
from predictor.engine.classifier import Classifier
from predictor.engine.lanes import Lanes
from predictor.engine.ranking import Prediction, rank
from predictor.errors import (
    BadRequest,
    DeadlineExceeded,
    ExplainerBusy,
    InferenceFailed,
    PredictorError,
    inference_failure,
)
from predictor.images.heatmap import shrink
from predictor.images.preprocessing import Box
from predictor.models.scorer import Heat
from predictor.settings import Settings

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

# Seconds without a prediction in progress before an explanation continues. A client that sends
# one photo after the other leaves gaps of about a millisecond, too short for a layer of VGG16
# (up to 25 ms).
IDLE_S = 0.05
POLL_S = 0.25  # between two checks whether the client has left


@dataclass(frozen=True, slots=True)
class Explanation:
    """A class, and how much each part of the photo supports that class."""

    prediction: Prediction
    heat: Heat  # (h, w) float32, 0 to 1, over the box
    box: Box  # the part of the photo that the model sees
    photo: Image  # upright, RGB, shrunk to the size at which the heat is painted

    def as_numbers(self) -> dict[str, Any]:
        """Return the explanation as JSON: the prediction, ``heat`` and ``box``."""
        heat = [[round(float(value), 4) for value in row] for row in self.heat]
        return self.prediction._asdict() | {"box": self.box, "heat": heat}


@dataclass(slots=True)
class _Task:
    classifier: Classifier
    data: bytes
    class_index: int | None
    call: Call


class Explainer:
    """Explains the predictions of all models of a process, one at a time. Any thread may call it.

    The caller holds one of the process's ``explanations`` slots.
    """

    def __init__(self, process: Process, settings: Settings) -> None:
        """Start nothing yet: the first explanation starts the thread."""
        self._process, self._max_queue = process, settings.max_explanations
        self._starting = threading.Lock()
        self._batcher: Batcher[_Task, Explanation] | None = None
        self._closed = False

    def close(self) -> None:
        """End the thread. Later calls raise InferenceFailed."""
        with self._starting:
            self._closed = True
            if self._batcher is not None:
                self._batcher.close()

    def explain(
        self,
        classifier: Classifier,
        data: bytes,
        class_index: int | None = None,
        call: Call | None = None,
    ) -> Explanation:
        """Explain which parts of an image file support a class; None: the most probable class.

        ``classifier`` is one of this process.

        Raises:
            RequestError: there is no such class, the image cannot be read, the model cannot be
                explained, or the client left.
            ServiceError: the model is not loaded or failed, or predictions left no time.
        """
        call = classifier.begin(call)
        classes = len(classifier.require_model().labels)
        if class_index is not None and not 0 <= class_index < classes:
            accepted = f"between 0 and {classes - 1}"
            raise BadRequest(f"class_index is {class_index}; it must be {accepted}.")
        with call.timings.measure("explain"):
            return self._run(_Task(classifier, data, class_index, call))

    def _run(self, task: _Task) -> Explanation:
        (job,) = self._worker().submit([task])
        try:
            return task.call.wait(job.future)
        except DeadlineExceeded:
            raise ExplainerBusy(
                "The server was too busy with predictions to finish the explanation. Retry later."
            ) from None
        except PredictorError:
            raise
        except Exception as error:
            log.exception("The explanation failed")
            raise inference_failure(error) from error
        finally:
            job.future.cancel()

    def _worker(self) -> Batcher[_Task, Explanation]:
        """Return the batcher that runs the explanations; start a batcher if none is running."""
        with self._starting:
            if self._closed:
                raise InferenceFailed("The model has stopped; this process cannot answer any more.")
            if self._batcher is None or not self._batcher.alive:
                self._batcher = Batcher(
                    Lanes(),  # predictions run at the same time
                    lambda tasks, _lanes: map(self._explain, tasks),
                    max_batch_size=1,
                    max_queue=self._max_queue,
                )
            return self._batcher

    def _explain(self, task: _Task) -> Explanation:
        def wait_for_predictions() -> None:
            while not self._process.slots.wait_until_idle(IDLE_S, POLL_S):
                task.call.check()

        wait_for_predictions()
        model = task.classifier.require_model()
        preprocess = model.scorer.preprocessing

        def prepare(photo: Image) -> tuple[NDArray[np.uint8], Box, Image]:
            pixels, box = preprocess(photo), preprocess.visible_box(photo.size)
            return pixels, box, shrink(photo)

        pixels, box, photo = task.classifier.decode(task.data, task.call, prepare)
        evidence = partial(model.card.output.evidence, class_index=task.class_index)
        logits, heat = model.scorer.explain(pixels, evidence, wait_for_predictions)
        ranked = rank(logits, model.card, len(model.labels))
        index = ranked[0].class_index if task.class_index is None else task.class_index
        prediction = next(p for p in ranked if p.class_index == index)
        return Explanation(prediction, heat, box, photo)
