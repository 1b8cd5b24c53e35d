"""Everything that can go wrong, as one tree.

::

    PredictorError
    ├── StartError                  the server cannot start; the sentence says why
    │   ├── SettingsError
    │   ├── LabelsError
    │   ├── ModelError
    │   └── WeightsError
    │       └── WeightsUnavailable  neither on this machine nor to be had
    ├── RequestError                what the caller can mend
    │   ├── BadRequest        400
    │   ├── UnknownModel      404
    │   │   └── UnknownVersion
    │   ├── TooLarge          413
    │   ├── UnsupportedImage  415
    │   ├── DamagedImage      422
    │   ├── NotExplainable    501
    │   └── ClientGone        400  nobody reads it; the log does
    └── ServiceError                what the caller can only wait for
        ├── InferenceFailed   500
        │   └── OutOfMemory   503
        ├── NotReady          503
        ├── Overloaded        503
        ├── NoQuietMoment     503  only explanations wait for one
        └── DeadlineExceeded  504

A message is a sentence for the person who has to act on it. ``status`` is what
HTTP answers; ``code`` names the kind of error to a program.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import ClassVar


class PredictorError(Exception):
    """Anything this package raises on purpose."""

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    code: ClassVar[str] = "internal-error"


class StartError(PredictorError):
    """The model cannot be served as it was asked for."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "not-started"


class SettingsError(StartError):
    """A setting has a value that means nothing, or a name that nobody reads."""


class LabelsError(StartError):
    """The labels cannot be read."""


class ModelError(StartError):
    """No model has this name, or this machine cannot run it as asked."""


class WeightsError(StartError):
    """The weights cannot be read, or belong to another network."""


class WeightsUnavailable(WeightsError):
    """The weights are not on this machine and cannot be downloaded."""


class RequestError(PredictorError):
    """The request asks for something that cannot be answered; the caller can mend it."""

    status = HTTPStatus.BAD_REQUEST
    code = "bad-request"


class BadRequest(RequestError):
    """There is no image in the request, or a parameter makes no sense."""


class UnknownModel(RequestError):
    """No model has this name here."""

    status = HTTPStatus.NOT_FOUND
    code = "unknown-model"


class UnknownVersion(UnknownModel):
    """The model has no such version."""

    code = "unknown-version"


class TooLarge(RequestError):
    """The image has more pixels, or the request more images, than are accepted."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "too-large"


class UnsupportedImage(RequestError):
    """The bytes are not an image in a format that is read here."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "unsupported-image"


class DamagedImage(RequestError):
    """The bytes begin like an image and cannot be decoded."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "damaged-image"


class NotExplainable(RequestError):
    """The model is of a kind whose answers cannot be explained here; another one's can."""

    status = HTTPStatus.NOT_IMPLEMENTED
    code = "not-explainable"


class ClientGone(RequestError):
    """The client has closed its connection; its work is not done any more."""

    code = "client-gone"


class ServiceError(PredictorError):
    """The request is fine and the service cannot answer it now.

    Args:
        detail: a sentence for the caller.
        retry_after_s: seconds after which to come again, where more is known than the kind.
    """

    retry_after_s: int | None = None

    def __init__(self, detail: str, retry_after_s: float | None = None) -> None:
        """Whole seconds, as the header wants them, and at least one."""
        super().__init__(detail)
        if retry_after_s is not None:
            self.retry_after_s = max(1, math.ceil(retry_after_s))


class InferenceFailed(ServiceError):
    """The model raised, or answered something that is not a number."""

    code = "inference-failed"


class OutOfMemory(InferenceFailed):
    """Not even this image alone found the memory for a forward pass."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "out-of-memory"
    retry_after_s = 1


class NotReady(ServiceError):
    """The model is still being loaded, or could not be."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "not-ready"
    retry_after_s = 2


class Overloaded(ServiceError):
    """As many requests are being served, or images waiting, as are allowed."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "overloaded"
    retry_after_s = 1


class NoQuietMoment(ServiceError):
    """Predictions leave no time for an explanation, or others wait for it already.

    A kind of its own, because it is no sign of a service that is asked too much.
    """

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "no-quiet-moment"
    retry_after_s = 5


class DeadlineExceeded(ServiceError):
    """The answer was not there in time."""

    status = HTTPStatus.GATEWAY_TIMEOUT
    code = "deadline-exceeded"


def inference_failure(error: Exception) -> InferenceFailed:
    """What a caller is told of an exception of the model's, with it as the cause."""
    # By name and words, because torch is not imported here, and on the CPU it has no type for it.
    words = ("OutOfMemory", "can't allocate memory", "not enough memory")
    named = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or any(word in named for word in words):
        failure: InferenceFailed = OutOfMemory("There is not enough memory just now; try again.")
    else:
        failure = InferenceFailed("The model failed on this image.")
    failure.__cause__ = error
    return failure
