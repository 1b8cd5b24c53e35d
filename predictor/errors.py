"""All errors of this package, as one tree.

::

    PredictorError
    ├── StartError                  the server cannot start; the message says why
    │   ├── SettingsError
    │   ├── LabelsError
    │   ├── ModelError
    │   ├── ExportError
    │   ├── StoreError        409
    │   │   ├── LoadFailed    500
    │   │   └── ReadOnlyStore 405
    │   └── WeightsError
    │       └── WeightsUnavailable  not on this machine, and cannot be downloaded
    ├── RequestError                the client can correct it
    │   ├── BadRequest        400
    │   ├── UnknownModel      404
    │   │   └── UnknownVersion
    │   ├── RequestTimeout    408
    │   ├── Evicted           408
    │   ├── SendTimeout       408  only logged
    │   ├── TooLarge          413
    │   │   └── TooCostly
    │   │       └── OutOfTime       decoding took more than was expected
    │   ├── UnsupportedImage  415
    │   ├── DamagedImage      422
    │   ├── WrongSize         422
    │   ├── HeadTooLarge      431
    │   │   └── TargetTooLong 414
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
``code`` names the kind of error for a program. ``retry_after_s`` is the ``Retry-After`` header.
"""

import math
from http import HTTPStatus
from typing import ClassVar, TypeVar

AnyError = TypeVar("AnyError", bound=Exception)


class PredictorError(Exception):
    """Base class of all errors that this package raises on purpose."""

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    code: ClassVar[str] = "internal-error"
    retry_after_s: int | None = None

    def __init_subclass__(
        cls, status: int = 0, code: str = "", retry_after_s: int | None = None
    ) -> None:
        """Set the attributes given in the class statement, and inherit the rest."""
        cls.status = HTTPStatus(status or cls.status)
        cls.code, cls.retry_after_s = code or cls.code, retry_after_s or cls.retry_after_s


class StartError(PredictorError, status=503, code="not-started"):
    """The settings ask for something that cannot be served."""


class SettingsError(StartError):
    """A setting has an invalid value, or its name does not exist."""


class LabelsError(StartError):
    """The labels cannot be read."""


class ModelError(StartError):
    """There is no model of this name, or this machine cannot run it as the settings ask."""


class ExportError(StartError):
    """A format cannot carry the model, a program is missing, or a photo cannot be read."""


class StoreError(StartError, status=409, code="conflict"):
    """The model store, or an edit of it, is not valid. The message names the file and key."""


class LoadFailed(StoreError, status=500, code="load-failed"):
    """A version cannot be loaded. The message says whether the edit is undone."""


class ReadOnlyStore(StoreError, status=405, code="read-only-store"):
    """This process may not write to the model store."""


class WeightsError(StartError):
    """The weights cannot be read, or belong to another network."""


class WeightsUnavailable(WeightsError):
    """The weights are not on this machine and cannot be downloaded."""


class RequestError(PredictorError, status=400, code="bad-request"):
    """The request cannot be answered, and the client can correct it."""


class BadRequest(RequestError):
    """The request has no image, or has an invalid parameter."""


class UnknownModel(RequestError, status=404, code="unknown-model"):
    """This server has no model of this name."""


class UnknownVersion(UnknownModel, code="unknown-version"):
    """The model has no version of this name."""


class RequestTimeout(RequestError, status=408, code="request-timeout", retry_after_s=5):
    """The request did not arrive in time."""


class Evicted(RequestError, status=408, code="evicted", retry_after_s=5):
    """The client was slow, and the server needed its connection or memory for other clients."""


class SendTimeout(RequestError, status=408, code="send-timeout"):
    """The client did not read the response in time, so the server closed the connection."""


class TooLarge(RequestError, status=413, code="too-large"):
    """The image has too many pixels, or the request has too many images or parts."""


class TooCostly(TooLarge, code="too-costly"):
    """Decoding the image would cost too much for the bytes that the client sent."""


class OutOfTime(TooCostly):
    """Decoding the image took all of the processor time that it was given."""


class UnsupportedImage(RequestError, status=415, code="unsupported-image"):
    """The bytes are not an image in a supported format."""


class DamagedImage(RequestError, status=422, code="damaged-image"):
    """The bytes begin like an image but cannot be decoded."""


class WrongSize(RequestError, status=422, code="wrong-size"):
    """The served model takes images of one size only, and the image has another."""


class HeadTooLarge(RequestError, status=431, code="head-too-large"):
    """The request's line and headers are larger than the server accepts."""


class TargetTooLong(HeadTooLarge, status=414):
    """The request's URL is longer than the server accepts."""


class NotExplainable(RequestError, status=501, code="not-explainable"):
    """The served model is of a kind that cannot be explained."""


class ClientGone(RequestError, code="client-gone"):
    """The client closed its connection, so the server stopped working on its request."""


class ServiceError(PredictorError):
    """The request is valid, but the server cannot answer it now.

    Args:
        detail: a sentence for the client.
        retry_after_s: seconds after which the client should retry; None: the class's default.
    """

    def __init__(self, detail: str, retry_after_s: float | None = None) -> None:
        """Round ``retry_after_s`` up to whole seconds, at least one, for the HTTP header."""
        super().__init__(detail)
        if retry_after_s is not None:
            self.retry_after_s = max(1, math.ceil(retry_after_s))


class InferenceFailed(ServiceError, code="inference-failed"):
    """The model raised an exception, returned NaN or infinity, or has stopped."""


class OutOfMemory(InferenceFailed, status=503, code="out-of-memory", retry_after_s=1):
    """There was not enough memory for a forward pass of this image alone."""


class NotReady(ServiceError, status=503, code="not-ready", retry_after_s=2):
    """The model is loading, or could not be loaded, or the process is shutting down."""


class Overloaded(ServiceError, status=503, code="overloaded", retry_after_s=1):
    """The server is at its limit of requests in progress, of waiting images or of memory."""


class ExplainerBusy(ServiceError, status=503, code="explainer-busy", retry_after_s=5):
    """Predictions or other explanations leave no time for this explanation.

    It is not an ``Overloaded``, because predictions are still answered.
    """


class DeadlineExceeded(ServiceError, status=504, code="deadline-exceeded"):
    """The answer was not ready before the request's deadline."""


def without_frames(error: AnyError) -> AnyError:
    """Remove the tracebacks of an error and of those before it, and return it.

    What their frames refer to, such as an opened image, would be kept for as long as the error.
    """
    before: BaseException | None = error
    while before is not None:
        before.__traceback__ = None
        before = before.__context__
    return error


def inference_failure(error: Exception) -> InferenceFailed:
    """Return the error to send to the client when the model raised ``error``."""
    # Compare names and messages: torch is not imported here, and on the CPU raises RuntimeError.
    words = ("OutOfMemory", "can't allocate memory", "not enough memory")
    named = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or any(word in named for word in words):
        failure: InferenceFailed = OutOfMemory("The server is out of memory. Retry later.")
    else:
        failure = InferenceFailed("The model failed on this image. The server's log has the cause.")
    failure.__cause__ = error
    return failure


def codes() -> set[str]:
    """Return the codes of all errors that a client can get."""
    kinds: list[type[PredictorError]] = [RequestError, ServiceError, StoreError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return {kind.code for kind in kinds}
