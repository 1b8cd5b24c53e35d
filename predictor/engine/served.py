"""One version of a model that answers: the engine's interface for front ends, without Flask."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Literal, TypeVar

from predictor.engine.admission import Slots
from predictor.engine.call import Call
from predictor.engine.classifier import Classifier, Image
from predictor.engine.explainer import Explainer, Explanation
from predictor.engine.ranking import Prediction
from predictor.errors import NotReady, Overloaded, PredictorError, RequestError
from predictor.models.scorer import LoadedModel, Logits

if TYPE_CHECKING:
    from PIL.Image import Image as Photo

Result = TypeVar("Result")
NUMBER_S = 0.2e-6  # that parsing a number in JSON takes
# Bodies with more numbers have a queue of their own: 20 MB take 1.8 s. In a common one, 22 of them,
# in 1 MB of gzip each, made photos in gzip wait for 30 s.
MANY = 250_000
GRACE_S = 60.0  # beyond the request timeout, for the last requests of a version to be answered
SlotKind = Literal["prediction", "explanation"]


class Served:
    """A loaded version of a model. Any thread may use it.

    A front end makes one :class:`Call` for each request and passes it to every method.

    Attributes:
        version: at least 1.
    """

    def __init__(self, classifier: Classifier, explainer: Explainer, version: int = 1) -> None:
        """Serve what the classifier has loaded. The models of a process share the explainer."""
        self.classifier, self.version = classifier, version
        self.settings, self._explainer = classifier.settings, explainer
        self._users, self._closed = 0, False
        self._changed = threading.Condition()

    @property
    def name(self) -> str:
        """The name under which the model is served."""
        return self.classifier.name

    @property
    def model(self) -> LoadedModel:
        """The loaded model."""
        return self.classifier.require_model()

    def enter(self) -> bool:
        """Count a request that this version answers; return False if the version is closed."""
        with self._changed:
            self._users += not self._closed
            return not self._closed

    def leave(self) -> None:
        """Count a request as answered."""
        with self._changed:
            self._users -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Wait until all requests are answered, or their time is over; then free the model."""
        with self._changed:
            timeout_s = self.settings.request_timeout_s + GRACE_S
            self._changed.wait_for(lambda: not self._users, timeout_s)
            self._closed = True
        self.classifier.close()

    def room(self, kind: SlotKind) -> Slots:
        """Return the slots for a kind of request, of which one seems free. This does not wait.

        Raises:
            Overloaded, ExplainerBusy: no slot is free, or the model's queue is too long.
        """
        process = self.classifier.process
        if kind == "explanation":
            slots = process.explanations
        else:
            slots, expected_s = process.slots, self.classifier.expected_s or 0.0
            if expected_s > self.settings.request_timeout_s and self.classifier.queue_depth:
                detail = "The request could not be answered in time. Retry later."
                raise Overloaded(detail, expected_s)
        slots.check(self.name)
        return slots

    def classify(
        self, images: Sequence[bytes | RequestError], top_k: int | None, call: Call
    ) -> list[list[Prediction] | PredictorError]:
        """Classify encoded images, as :meth:`Classifier.classify` does."""
        return self.classifier.classify(images, top_k, call)

    def logits(
        self, images: Sequence[Image | RequestError], call: Call
    ) -> list[Logits | PredictorError]:
        """Run the model on images, as :meth:`Classifier.logits` does."""
        return self.classifier.logits(images, call)

    def parser(self, call: Call, size: int, numbers: int) -> AbstractContextManager[None]:
        """Return a turn to parse a body of at most so many numbers.

        For the errors see :meth:`Turns.take`. ``size``: of the body, in bytes that were sent. With
        few for its numbers it waits longer: 60 clients with 1.2 kB of gzip made photos in gzip
        take 3 s.
        """
        process = self.classifier.process
        turns = process.large_parsers if numbers > MANY else process.parsers
        return turns.take(self.classifier.begin(call), numbers * NUMBER_S, size)

    def preview(self, image: bytes, call: Call, show: Callable[[Photo], Result]) -> Result:
        """Return what ``show`` makes of the RGB picture that the model sees of an encoded image.

        For the errors see :meth:`predictor.engine.decoders.Decoders.decode`.
        """
        preprocessing = self.model.scorer.preprocessing
        with self.classifier.begin(call).timings.measure("preview"):
            return self.classifier.decode(
                image, call, lambda photo: show(preprocessing.picture(preprocessing(photo)))
            )

    def explain(self, image: bytes, class_index: int | None, call: Call) -> Explanation:
        """Explain one class of an encoded image, as :meth:`Explainer.explain` does."""
        return self._explainer.explain(self.classifier, image, class_index, call)


class Place:
    """The place of one request: a slot of its kind, and the version that answers it.

    Attributes:
        served: the version, once the place is taken.
        found: name and version of what was found to answer; it may have refused the request.
    """

    served: Served
    found = "", ""

    def __init__(self, kind: SlotKind, resolve: Callable[[], Served]) -> None:
        """Take nothing yet. ``resolve`` finds the version, or raises the error for the client."""
        self._kind, self._resolve = kind, resolve

    def check(self) -> None:
        """Raise the error for the client if the place could not be taken now."""
        self._find().room(self._kind)

    def take(self) -> None:
        """Take a slot of the version that is served now. It may have changed since the check.

        Raises:
            NotReady, Overloaded, ExplainerBusy, RequestError: the request cannot be answered.
        """
        self.served = self._enter()
        try:
            self._slots = self.served.room(self._kind)
            self._slots.take(self.served.name)
        except PredictorError:
            self.served.leave()
            raise

    def release(self) -> None:
        """Give back the slot, and let the version be unloaded."""
        self._slots.release(self.served.name)
        self.served.leave()

    @contextmanager
    def hold(self) -> Iterator[Served]:
        """Hold the place for the block; yield the version."""
        self.take()
        try:
            yield self.served
        finally:
            self.release()

    def _enter(self) -> Served:
        for _ in range(2):  # the version found may close before it is entered; then find the next
            if (served := self._find()).enter():
                return served
        raise NotReady("The model is being unloaded. Retry in a few seconds.")

    def _find(self) -> Served:
        served = self._resolve()
        self.found = served.name, str(served.version)
        return served
