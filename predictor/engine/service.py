"""The engine's interface for front ends. It does not depend on Flask."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal

from predictor.engine.admission import Slots
from predictor.engine.call import Call
from predictor.engine.classifier import Classifier, Image
from predictor.engine.explainer import Explainer, Explanation
from predictor.engine.metrics import Metrics
from predictor.engine.ranking import Prediction
from predictor.errors import (
    InferenceFailed,
    NotReady,
    Overloaded,
    PredictorError,
    RequestError,
    UnknownModel,
    UnknownVersion,
)
from predictor.models.scorer import LoadedModel, Logits

if TYPE_CHECKING:
    from PIL.Image import Image as Photo

SlotKind = Literal["prediction", "explanation"]


class Service:
    """A classifier with its explanations, its admission and its metrics.

    A front end makes one :class:`Call` for each request and passes it to every method.
    ``explainer`` is None if ``PREDICTOR_MAX_EXPLANATIONS`` is 0.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier, self.settings = classifier, classifier.settings
        self.explainer: Explainer | None = None
        if self.settings.max_explanations:
            self.explainer = Explainer(classifier.process, self.settings)
            classifier.on_close.append(self.explainer.close)
        self.metrics = Metrics(classifier)
        classifier.process.slots.retry_after_s = lambda: classifier.backlog_s

    @property
    def name(self) -> str:
        """The model's name, from :attr:`Classifier.name`; raises NotReady if it is unknown."""
        return self.classifier.name

    def require_model(self) -> LoadedModel:
        """Return the loaded model; raise NotReady if it is not loaded."""
        return self.classifier.require_model()

    def expect_model(self, name: str, version: str, versions: Collection[str]) -> None:
        """Raise UnknownModel or UnknownVersion if a request names another model or version."""
        served = self.name
        if name != served:
            raise UnknownModel(f"There is no model {name!r}. This server has {served!r}.")
        if version not in versions:
            known = " or ".join(map(repr, versions))
            raise UnknownVersion(
                f"The model {served!r} has no version {version!r}. It has {known}."
            )

    def expect_healthy(self) -> None:
        """Raise InferenceFailed if the process must be replaced. Loading is not a failure."""
        if (reason := self.classifier.unhealthy_reason()) is not None:
            raise InferenceFailed(reason)

    def expect_ready(self) -> LoadedModel:
        """Return the loaded model; raise a ServiceError if requests would fail now."""
        self.expect_healthy()
        if self.classifier.process.draining:
            raise NotReady("This server process is shutting down. Retry: another one answers.")
        if (turns := self.classifier.process.decoders.turns).full:
            detail = f"{turns.waiting} images are waiting to be decoded."
            raise Overloaded(detail, self.classifier.backlog_s)
        return self.require_model()

    def expect_room(self, kind: SlotKind) -> Slots:
        """Return the slots for a kind of request, of which one seems free. This does not wait.

        Raises:
            NotReady: the model is not loaded.
            Overloaded, ExplainerBusy: no slot is free, or the queue is too long.
        """
        self.require_model()
        if kind == "explanation":
            assert self.explainer is not None
            slots = self.classifier.process.explanations
        else:
            slots, backlog_s = self.classifier.process.slots, self.classifier.backlog_s or 0.0
            if backlog_s > self.settings.request_timeout_s and self.classifier.queue_depth:
                detail = "The request could not be answered in time. Retry later."
                raise Overloaded(detail, backlog_s)
        slots.check()
        return slots

    @contextmanager
    def admit(self, call: Call) -> Iterator[LoadedModel]:
        """Hold an admission slot for the block, which runs one request; yield the loaded model.

        If the front end has taken the slot, only check the model.

        Raises:
            NotReady: the model is not loaded.
            Overloaded: the server is at its limit of requests in progress.
        """
        model = self._model_for(call)
        with nullcontext() if call.has_slot else self.classifier.process.slots.hold():
            yield model

    @contextmanager
    def admit_explanation(self, call: Call) -> Iterator[LoadedModel]:
        """Hold a slot for one explanation; raise NotReady, or ExplainerBusy if no slot is free."""
        assert self.explainer is not None
        model = self._model_for(call)
        slot = nullcontext() if call.has_slot else self.classifier.process.explanations.hold()
        with slot, self.metrics.explanations_in_flight.track_inprogress():
            yield model

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

    def preview(self, image: bytes, call: Call) -> Photo:
        """Return what the model sees of an encoded image, as an RGB picture.

        For the errors see :meth:`predictor.engine.decoders.Decoders.decode`.
        """
        preprocessing = self.require_model().scorer.preprocessing
        with self.classifier.begin(call).timings.measure("decode"):
            return preprocessing.picture(self.classifier.decode(image, call, preprocessing))

    def explain(self, image: bytes, class_index: int | None, call: Call) -> Explanation:
        """Explain one class of an encoded image, as :meth:`Explainer.explain` does."""
        assert self.explainer is not None
        return self.explainer.explain(self.classifier, image, class_index, call)

    def _model_for(self, call: Call) -> LoadedModel:
        model = self.require_model()
        call.model = self.name
        return model
