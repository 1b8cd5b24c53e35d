"""Encoded images → predictions: decode, preprocess, queue, run the model, rank."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from predictor.engine.admission import Process
from predictor.engine.batching import Batcher
from predictor.engine.call import Call, Job, map_good
from predictor.engine.ranking import Prediction, finite, rank
from predictor.errors import (
    BadRequest,
    ClientGone,
    DeadlineExceeded,
    InferenceFailed,
    NotReady,
    Overloaded,
    PredictorError,
    RequestError,
    StartError,
    TooLarge,
    inference_failure,
    without_frames,
)
from predictor.images.preprocessing import Pixels
from predictor.models.loading import load_model
from predictor.models.scorer import LoadedModel, Logits, Scorer
from predictor.settings import Settings

if TYPE_CHECKING:
    from PIL.Image import Image as Photo

log = logging.getLogger(__name__)
Result = TypeVar("Result")

# A model hangs if a batch runs for longer than both HANG_S seconds and four request timeouts.
HANG_S = 120.0

Image = bytes | Pixels  # an encoded file, or prepared pixels


class Classifier:
    """One model with its queue. Any thread may call it.

    The model loads in the background. The future ``loading`` gets the model after the warm-up, or
    the exception if the model could not be loaded.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[Settings, int], LoadedModel] = load_model,
        process: Process | None = None,
    ) -> None:
        """Prepare the classifier. :meth:`start` loads the model.

        ``load`` takes the settings and the number of processors. ``process`` holds the resources
        that the models of this process share; None: create them.
        """
        self.settings = settings
        self.process = process or Process(settings)
        self.loading: Future[LoadedModel] = Future()
        self._load = load
        # Called after each forward pass but the warm-up, with the number of images and the seconds.
        self.on_pass: list[Callable[[int, float], None]] = []
        # Called for each classified image with the index and the probability of its best class.
        self.on_answer: list[Callable[[int, float], None]] = []
        self.on_close: list[Callable[[], None]] = []
        self._batcher: Batcher[Pixels, Logits] | None = None
        self._start_once = threading.Lock()

    def start(self) -> None:
        """Begin to load the model in the background. Further calls do nothing."""
        if self._start_once.acquire(blocking=False):
            threading.Thread(target=self._load_in_background, name="loader", daemon=True).start()

    def abandon(self) -> None:
        """Fail all requests of the process and refuse new ones. Used when a model hangs."""
        self.process.draining = True
        self.process.lanes.abandon()

    def close(self) -> None:
        """Wait for the forward passes in progress, then call the functions in ``on_close``."""
        if self._batcher is not None:
            self._batcher.close()
        for callback in self.on_close:
            callback()

    def require_model(self) -> LoadedModel:
        """Return the loaded model; raise NotReady while it loads, or if it could not be loaded."""
        self.start()
        if not self.loading.done():
            raise NotReady("The model is loading. Retry in a few seconds.")
        if (error := self.loading.exception()) is not None:
            raise NotReady(
                "The model could not be loaded. The server's log has the reason."
            ) from error
        return self.loading.result()

    def unhealthy_reason(self) -> str | None:
        """Return why this process must be replaced; None while it is healthy or loading."""
        if self.loading.done() and self.loading.exception() is not None:
            return "The model could not be loaded."
        if self._batcher is None:
            return None
        if not self.process.lanes.alive:  # the batcher may be closed, of a version just unloaded
            return "An inference thread has ended."
        if (busy_s := self.process.lanes.busy_s) > max(HANG_S, 4 * self.settings.request_timeout_s):
            return f"A batch has been running for {busy_s:.0f} s."
        return None

    @property
    def name(self) -> str:
        """The name under which the model is served.

        With ``auto``, raises NotReady during loading, because a fallback model may be chosen.
        """
        chosen = self.settings.served_name
        return self.require_model().info.name if chosen == "auto" else chosen

    @property
    def queue_depth(self) -> int:
        """Number of images that wait for the model."""
        return 0 if self._batcher is None else self._batcher.waiting

    @property
    def backlog_s(self) -> float | None:
        """Estimated seconds until both queues are empty; None before the model is loaded."""
        if self._batcher is None:
            return None
        return self._batcher.backlog_s + self.process.decoders.turns.backlog_s

    @property
    def expected_s(self) -> float | None:
        """Estimated seconds until a photo that comes now is classified; None before loading."""
        if self._batcher is None:
            return None
        return self._batcher.expected_s + self.process.decoders.turns.backlog_s

    @property
    def enough_pixels(self) -> int | None:
        """Number of pixels that suffice for a photo's shorter side; None: decode at full size."""
        exact = self.settings.exact_decode
        return None if exact else self.require_model().scorer.preprocessing.enough_pixels

    def decode(self, data: bytes, call: Call, prepare: Callable[[Photo], Result]) -> Result:
        """Decode an image as the model needs it, and return what ``prepare`` makes of it.

        For the errors see :meth:`predictor.engine.decoders.Decoders.decode`.
        """
        alpha = self.require_model().scorer.preprocessing.channels == "RGBA"
        return self.process.decoders.decode(data, call, self.enough_pixels, prepare, alpha)

    def classify(
        self, images: Sequence[bytes | RequestError], top_k: int | None = 1,
        call: Call | None = None,
    ) -> list[list[Prediction] | PredictorError]:  # fmt: skip
        """Return each image's ``top_k`` predictions, best first, or its error.

        Args:
            images: whole files, as :func:`predictor.images.decoding.decode` reads them. An
                item may also be an error; the result then has that error at the same position.
            top_k: at least 1; all classes if the model has fewer. None: the best class; if several
                labels can be right, also all others from the threshold on.
            call: the request; its timings and class ids are filled in.

        Raises:
            RequestError: ``top_k`` is below 1, there are too many images, or the client left.
            ServiceError: the model is not loaded, the queue is full, or the deadline has passed.
        """
        card = self.require_model().card
        if top_k is not None and top_k < 1:
            raise BadRequest(f"top_k is {top_k}; it must be at least 1.")
        outcomes = self.logits(images, call)
        return map_good(lambda found: [rank(logits, card, top_k) for logits in found], outcomes)

    def logits(
        self, images: Sequence[Image | RequestError], call: Call | None = None
    ) -> list[Logits | PredictorError]:
        """Return each image's ``(outputs,)`` float32 logits, or its error.

        Args:
            images: whole files; or prepared pixels ``(height, width, C)``, 0 to 255, as
                :class:`predictor.images.preprocessing.Preprocessing` makes them. An item
                may also be an error; the result then has that error at the same position.
            call: the request; its timings and class ids are filled in.

        Raises:
            RequestError: there are too many images, or the client left.
            ServiceError: the model is not loaded, the queue is full, or the deadline has passed.
        """
        model, call, most = self.require_model(), self.begin(call), self.settings.max_queue
        assert self._batcher is not None
        self._batcher.require_alive()
        if len(images) > most:
            raise TooLarge(f"The request has {len(images)} images; at most {most} are accepted.")
        to_classify = sum(not isinstance(image, RequestError) for image in images)
        call.budget.check(to_classify)
        if to_classify:
            self._batcher.check(to_classify, call.deadline)  # before they are decoded
        several, share = self.process.several, len(images) / most
        with several.hold(self.name, share) if len(images) > 1 else nullcontext():
            outcomes = self._outcomes(images, model, call)
        for logits in outcomes:
            if not isinstance(logits, PredictorError):
                index, probability = model.card.output.best(logits)
                call.class_ids.append(model.labels[index].class_id)
                for callback in self.on_answer:
                    callback(index, probability)
        return outcomes

    def _outcomes(
        self, images: Sequence[Image | RequestError], model: LoadedModel, call: Call
    ) -> list[Logits | PredictorError]:
        with call.timings.measure("decode"):
            prepared = [
                self._prepare(image, model, call) if isinstance(image, bytes) else image
                for image in images
            ]
        return map_good(partial(self._run_all, call=call), prepared)

    def begin(self, call: Call | None) -> Call:
        """Return the call, or a new call. Set its deadline, which all images of a request share."""
        call = call or Call()
        if call.deadline == inf:
            call.deadline = monotonic() + self.settings.request_timeout_s
        return call

    def _prepare(self, data: bytes, model: LoadedModel, call: Call) -> Pixels | PredictorError:
        try:
            return self.decode(data, call, model.scorer.preprocessing)
        except ClientGone:
            raise
        except (RequestError, Overloaded) as error:
            return without_frames(error)

    def _run_all(self, images: list[Pixels], call: Call) -> list[Logits | InferenceFailed]:
        assert self._batcher is not None
        jobs = self._batcher.submit(images, call.deadline)
        try:
            return [_wait(job, call) for job in jobs]
        finally:
            for job in jobs:  # if the client has left, do not run its waiting images
                job.future.cancel()
            if jobs:
                self.process.slots.used_at = monotonic()
            call.timings.add_wait(jobs)

    def _infer(self, scorer: Scorer, images: list[Pixels], lanes: int) -> Logits:
        began = monotonic()
        logits = scorer.logits(images, lanes)
        if self.loading.done():  # do not count the warm-up
            for callback in self.on_pass:
                callback(len(images), monotonic() - began)
        return logits

    def _load_in_background(self) -> None:
        try:
            model = self._load(self.settings, self.process.cpus)
            self._batcher = Batcher(
                self.process.lanes,
                partial(self._infer, model.scorer),
                max_batch_size=model.scorer.max_batch_size,
                max_queue=self.settings.max_queue,
                max_delay_s=self.settings.max_batch_delay_ms / 1000,
                lanes=model.scorer.lanes,
            )
            self._warm_up(model.scorer)
        except BaseException as error:
            if isinstance(error, StartError):
                for line in f"The model cannot be served. {error}".splitlines():
                    log.error("%s", line)
            else:
                log.exception("The model cannot be served.")
            self.close()
            self.loading.set_exception(error)
        else:
            self.loading.set_result(model)

    def _warm_up(self, scorer: Scorer) -> None:
        """Run black images, so that the slow first forward passes delay no request."""
        assert self._batcher is not None
        most = self.settings.max_queue
        black: Pixels = np.zeros(scorer.preprocessing.shape, np.uint8)
        for size in sorted({min(size, most) for size in scorer.warm_up_sizes}):
            for job in self._batcher.submit([black] * size):
                job.future.result()


def _wait(job: Job[Pixels, Logits], call: Call) -> Logits | InferenceFailed:
    try:
        return finite(call.wait(job.future))
    except InferenceFailed as error:
        return error
    except (DeadlineExceeded, RequestError):
        raise
    except Exception as error:
        log.exception("The model failed")
        return inference_failure(error)
