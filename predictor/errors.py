"""All errors of this package, as one tree.

::

    PredictorError
    ├── StartError                  the server cannot start; the message says why
    │   ├── SettingsError
    │   ├── LabelsError
    │   ├── ModelError
    │   └── WeightsError
    │       └── WeightsUnavailable  not on this machine, and cannot be downloaded
    ├── RequestError                the client can correct it
    │   ├── BadRequest        400
    │   ├── UnknownModel      404
    │   │   └── UnknownVersion
    │   ├── RequestTimeout    408
    │   ├── TooLarge          413
    │   ├── UnsupportedImage  415
    │   ├── DamagedImage      422
    │   ├── NotExplainable    501
    │   └── ClientGone        400  only logged
    └── ServiceError                the client can only retry
        ├── InferenceFailed   500
        │   └── OutOfMemory   503
        ├── NotReady          503
        ├── Overloaded        503
        ├── ExplainerBusy     503
        └── DeadlineExceeded  504

A message is a sentence for the person who has to act on it. ``status`` is the HTTP status and
``code`` names the kind of error for a program. ``retry_after_s`` is the header ``Retry-After``.
"""

import math
from http import HTTPStatus
from typing import ClassVar


class PredictorError(Exception):
    """Base class of all errors that this package raises on purpose."""

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    code: ClassVar[str] = "internal-error"
    retry_after_s: int | None = None


class StartError(PredictorError):
    """The settings ask for something that cannot be served."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "not-started"


class SettingsError(StartError):
    """A setting has an invalid value, or its name does not exist."""


class LabelsError(StartError):
    """The labels cannot be read."""


class ModelError(StartError):
    """There is no model of this name, or this machine cannot run it as the settings ask."""


class WeightsError(StartError):
    """The weights cannot be read, or belong to another network."""


class WeightsUnavailable(WeightsError):
    """The weights are not on this machine and cannot be downloaded."""


class RequestError(PredictorError):
    """The request cannot be answered, and the client can correct it."""

    status = HTTPStatus.BAD_REQUEST
    code = "bad-request"


class BadRequest(RequestError):
    """The request has no image, or an invalid parameter."""


class UnknownModel(RequestError):
    """This server has no model of this name."""

    status = HTTPStatus.NOT_FOUND
    code = "unknown-model"


class UnknownVersion(UnknownModel):
    """The model has no version of this name."""

    code = "unknown-version"


class RequestTimeout(RequestError):
    """The request did not arrive in time."""

    status = HTTPStatus.REQUEST_TIMEOUT
    code = "request-timeout"
    retry_after_s = 5


class TooLarge(RequestError):
    """The image has too many pixels, or the request too many images or parts."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "too-large"


class UnsupportedImage(RequestError):
    """The bytes are not an image in a supported format."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "unsupported-image"


class DamagedImage(RequestError):
    """The bytes begin like an image but cannot be decoded."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "damaged-image"


class NotExplainable(RequestError):
    """The served model is of a kind that cannot be explained."""

    status = HTTPStatus.NOT_IMPLEMENTED
    code = "not-explainable"


class ClientGone(RequestError):
    """The client has closed its connection, so its work was stopped."""

    code = "client-gone"


class ServiceError(PredictorError):
    """The request is valid, but the server cannot answer it now.

    Args:
        detail: a sentence for the client.
        retry_after_s: seconds after which the client should retry; the class's default if None.
    """

    def __init__(self, detail: str, retry_after_s: float | None = None) -> None:
        """Round ``retry_after_s`` up to whole seconds, at least one, for the HTTP header."""
        super().__init__(detail)
        if retry_after_s is not None:
            self.retry_after_s = max(1, math.ceil(retry_after_s))


class InferenceFailed(ServiceError):
    """The model raised an exception, or returned something that is not a number."""

    code = "inference-failed"


class OutOfMemory(InferenceFailed):
    """There was not enough memory for a forward pass of this image alone."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "out-of-memory"
    retry_after_s = 1


class NotReady(ServiceError):
    """The model is loading, or could not be loaded, or the process is shutting down."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "not-ready"
    retry_after_s = 2


class Overloaded(ServiceError):
    """The server is at its limit of requests in progress, of waiting images or of memory."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "overloaded"
    retry_after_s = 1


class ExplainerBusy(ServiceError):
    """Predictions or other explanations leave no time for this explanation.

    It is not an ``Overloaded``, because predictions are still answered.
    """

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "explainer-busy"
    retry_after_s = 5


class DeadlineExceeded(ServiceError):
    """The answer was not ready before the request's deadline."""

    status = HTTPStatus.GATEWAY_TIMEOUT
    code = "deadline-exceeded"


def inference_failure(error: Exception) -> InferenceFailed:
    """Return the error to send to the client when the model raised ``error``."""
    # By class name and message: torch is not imported here, and raises RuntimeError on the CPU.
    words = ("OutOfMemory", "can't allocate memory", "not enough memory")
    named = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or any(word in named for word in words):
        failure: InferenceFailed = OutOfMemory("The server is out of memory. Retry later.")
    else:
        failure = InferenceFailed("The model failed on this image. The server's log has the cause.")
    failure.__cause__ = error
    return failure
