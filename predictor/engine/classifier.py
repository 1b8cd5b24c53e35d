"""Bytes → predictions: the steps in order, on the threads they belong to."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from time import monotonic
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from predictor.engine.admission import Places
from predictor.engine.batching import Batcher, wait_for
from predictor.engine.cpus import available_cpus
from predictor.engine.ranking import Prediction, finite, rank
from predictor.engine.timings import Passenger, Timings
from predictor.errors import (
    BadRequest,
    DeadlineExceeded,
    InferenceFailed,
    ModelError,
    NotReady,
    PredictorError,
    RequestError,
    StartError,
    TooLarge,
    inference_failure,
)
from predictor.images.decoding import decode
from predictor.images.preprocessing import Pixels, Preprocessing
from predictor.models.info import ModelInfo
from predictor.models.labels import Label, load_labels
from predictor.settings import Settings

log = logging.getLogger(__name__)

# How many times the pixels of the resized side a reduced JPEG must keep. On 50 photographs
# enlarged to 12 megapixels, EfficientNet-Lite0 gives each the same class as from all pixels,
# and the class's probability moves by 0.007 on average (0.019 with 1 instead of 2).
OVERSAMPLING = 2

Logits = NDArray[np.float32]
Heat = NDArray[np.float32]


class Scorer(Protocol):
    """What the classifier needs of a model; :class:`predictor.models.network.Model` is one."""

    preprocessing: Preprocessing
    shares: int
    max_batch_size: int
    warm_up_sizes: set[int]

    def logits(self, images: Sequence[Pixels], shares: int) -> Logits:
        """Score N images with some of the processors: ``(N, classes)`` float32 logits."""

    def explain(
        self, image: NDArray[np.uint8], class_index: int | None, pause: Callable[[], None]
    ) -> tuple[Logits, Heat]:
        """Score one image and explain a class: ``(classes,)`` logits, ``(h, w)`` heat, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A loaded model with what belongs to it."""

    model: Scorer
    info: ModelInfo
    labels: tuple[Label, ...]


def load_engine(settings: Settings) -> Engine:
    """Load labels and model; this imports torch.

    Raises:
        StartError: the model cannot be served as the settings ask.
    """
    labels = load_labels(settings.labels)
    try:  # here, because torch takes seconds to import and a server should listen before that
        from predictor.models.network import load_model
    except (ImportError, RuntimeError) as error:
        raise ModelError(
            f"torch {_version('torch')} and torchvision {_version('torchvision')} cannot be"
            f" imported together ({error}). Install both from one place, as the README says."
        ) from error
    model, info = load_model(settings, len(labels))
    return Engine(model, info, labels)


def _version(package: str) -> str:
    """With the build: ``2.15.0+cpu`` beside a torchvision without ``+cpu`` is the usual trouble."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


class Classifier:
    """Classifies encoded images; any thread may call it.

    It loads in the background: ``loading`` is done when the model has answered once, and
    holds the error when it cannot be had.

    Attributes:
        places: those of the requests that are in work.
        draining: whether the process is about to end, and should be sent no more requests.
        on_close: called when it is closed, to end what works for it.
        on_pass: told the images and the seconds of every forward pass that a caller waits for.
    """

    def __init__(
        self, settings: Settings, load: Callable[[Settings], Engine] = load_engine
    ) -> None:
        """Prepare to load; nothing happens before :meth:`start`."""
        self.settings = settings
        self.loading: Future[Engine] = Future()
        self._load = load
        self.on_pass: Callable[[int, float], None] = lambda images, seconds: None
        self.on_close: list[Callable[[], None]] = []
        self._batcher: Batcher[Passenger[Pixels], Logits] | None = None
        self.draining = False
        self._start_once = threading.Lock()
        self.places = Places(settings.max_in_flight)
        # Decoding competes with the model for the processors, and a decoded photo is large.
        self._decoders = threading.BoundedSemaphore(available_cpus())

    def start(self) -> None:
        """Begin to load in the background; again, it does nothing."""
        if self._start_once.acquire(blocking=False):
            threading.Thread(target=self._load_in_background, name="loader", daemon=True).start()

    def abandon(self) -> None:
        """Answer everybody who waits, with a failure: the model hangs."""
        self.draining = True
        if self._batcher is not None:
            self._batcher.abandon()

    def close(self) -> None:
        """End the inference threads, and what works for it."""
        if self._batcher is not None:
            self._batcher.close()
        for end in self.on_close:
            end()

    def engine(self) -> Engine:
        """The loaded model.

        Raises:
            NotReady: it is being loaded, or could not be.
        """
        self.start()
        if not self.loading.done():
            raise NotReady("The model is being loaded; try again in a few seconds.")
        if (error := self.loading.exception()) is not None:
            raise NotReady("The model could not be loaded; the server's log says why.") from error
        return self.loading.result()

    def ailment(self) -> str | None:
        """Why this process should be replaced, or None while it is well."""
        if self.loading.done() and self.loading.exception() is not None:
            return "The model could not be loaded."
        if self._batcher is None:
            return None
        if not self._batcher.alive:
            return "An inference thread has ended."
        if self._batcher.busy_s > self.settings.hang_timeout_s:
            return f"A batch has been running for {self._batcher.busy_s:.0f} s."
        return None

    @property
    def name(self) -> str:
        """Under which the model is served.

        Raises:
            NotReady: there is no model yet, and it might be a stand-in.
        """
        chosen = self.settings.served_name
        return self.engine().info.name if chosen == "auto" else chosen

    @property
    def queue_depth(self) -> int:
        """How many images wait for the model."""
        return 0 if self._batcher is None else self._batcher.waiting

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Take a place for one request, before any of its work is done.

        Raises:
            NotReady: there is no model yet.
            Overloaded: all places are taken.
        """
        self.engine()
        with self.places.take(lambda: self._batcher.backlog_s if self._batcher else None):
            yield

    @property
    def enough_pixels(self) -> int | None:
        """Pixels of a photo's shorter side that suffice, if not all are wanted."""
        if self.settings.exact_decode:
            return None
        return OVERSAMPLING * self.engine().model.preprocessing.resize

    def classify(
        self,
        images: Sequence[bytes],
        top_k: int = 1,
        timings: Timings | None = None,
        has_left: Callable[[], bool] = lambda: False,
    ) -> list[list[Prediction] | PredictorError]:
        """Classify encoded images, best class first; one that fails has its error in its place.

        Args:
            images: whole files, as :func:`predictor.images.decoding.decode` reads them.
            top_k: how many classes to name, 1 to all.
            timings: to be told where the time went.
            has_left: whether the caller has gone; asked now and then.

        Raises:
            RequestError: ``top_k`` is out of range, there are too many images, or the caller left.
            ServiceError: the model is not there, has no room or took too long.
        """
        labels = self.engine().labels
        if not 1 <= top_k <= len(labels):
            raise BadRequest(f"top_k is {top_k}; it can be 1 to {len(labels)}.")
        scored = self.score(images, timings, has_left)
        return [s if isinstance(s, PredictorError) else rank(s, labels, top_k) for s in scored]

    def score(
        self,
        images: Sequence[bytes | Pixels],
        timings: Timings | None = None,
        has_left: Callable[[], bool] = lambda: False,
    ) -> list[Logits | PredictorError]:
        """The logits of each image, ``(classes,)`` float32; one that fails has its error instead.

        Args:
            images: whole files, or pixels that are prepared already: ``(crop, crop, 3)``, from
                0 to 255, as :class:`predictor.images.preprocessing.Preprocessing` makes them.
            timings: to be told where the time went.
            has_left: whether the caller has gone; asked now and then while the model is waited for.

        Raises:
            RequestError: there are too many images, or the caller left.
            ServiceError: the model is not there, has no room or took too long.
        """
        engine, timings = self.engine(), timings or Timings()
        deadline = monotonic() + self.settings.request_timeout_s
        if len(images) > self.settings.max_queue:
            raise TooLarge(f"{len(images)} images; at most {self.settings.max_queue} a request.")
        with timings.measure("decode"):
            prepared = [
                self._prepare(image, engine, deadline) if isinstance(image, bytes) else image
                for image in images
            ]
        readable = [pixels for pixels in prepared if not isinstance(pixels, RequestError)]
        logits = self._score_all(readable, deadline, timings, has_left)
        scored = iter(logits)
        return [p if isinstance(p, RequestError) else next(scored) for p in prepared]

    def _prepare(self, data: bytes, engine: Engine, deadline: float) -> Pixels | RequestError:
        if not self._decoders.acquire(timeout=max(0.0, deadline - monotonic())):
            raise DeadlineExceeded("There was no time to read the image; the server is busy.")
        try:
            photo = decode(data, self.settings.max_pixels, self.enough_pixels)
            return engine.model.preprocessing(photo)
        except RequestError as error:
            return error
        finally:
            self._decoders.release()

    def _score_all(
        self,
        images: Sequence[Pixels],
        deadline: float,
        timings: Timings,
        has_left: Callable[[], bool],
    ) -> list[Logits | InferenceFailed]:
        assert self._batcher is not None
        passengers = [Passenger(pixels, submitted=monotonic()) for pixels in images]
        futures = self._batcher.submit(passengers, deadline)
        try:
            return [self._wait(future, deadline, has_left) for future in futures]
        finally:
            for future in futures:  # whoever leaves early takes the rest out of the queue
                future.cancel()
            timings.settle(passengers)

    def _wait(
        self, future: Future[Logits], deadline: float, has_left: Callable[[], bool]
    ) -> Logits | InferenceFailed:
        wait_for(future, deadline, has_left)
        try:
            return finite(future.result())
        except InferenceFailed as error:
            return error
        except DeadlineExceeded:
            raise
        except Exception as error:
            log.exception("The model failed")
            return inference_failure(error)

    def _score(self, model: Scorer, passengers: Sequence[Passenger[Pixels]], shares: int) -> Logits:
        began = monotonic()
        for passenger in passengers:
            passenger.began = passenger.began or began
        logits = model.logits([passenger.item for passenger in passengers], shares)
        ended = monotonic()
        for passenger in passengers:
            passenger.ended = ended
        if self.loading.done():  # the warm-up's first-time costs are nobody's
            self.on_pass(len(passengers), ended - began)
        return logits

    def _load_in_background(self) -> None:
        try:
            engine = self._load(self.settings)
            self._batcher = Batcher(
                partial(self._score, engine.model),
                max_batch_size=engine.model.max_batch_size,
                max_queue=self.settings.max_queue,
                max_delay_s=self.settings.max_batch_delay_ms / 1000,
                shares=engine.model.shares,
            )
            self._warm_up(engine)
        except BaseException as error:
            if isinstance(error, StartError):
                log.error("The model cannot be served. %s", error)
            else:
                log.exception("The model cannot be served.")
            self.loading.set_exception(error)
        else:
            self.loading.set_result(engine)

    def _warm_up(self, engine: Engine) -> None:
        """Run blank images: no caller pays for first-time costs."""
        assert self._batcher is not None
        crop = engine.model.preprocessing.crop
        black: Pixels = np.zeros((crop, crop, 3), np.uint8)
        blank = Passenger(black, submitted=monotonic())
        room = self.settings.max_queue
        for size in sorted({min(size, room) for size in engine.model.warm_up_sizes}):
            for future in self._batcher.submit([blank] * size):
                future.result()
