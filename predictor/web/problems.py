"""Turn every error into a response: RFC 9457 problem details, or another protocol's shape."""

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flask import Flask, Response, current_app, jsonify, request
from werkzeug.exceptions import HTTPException, PreconditionFailed

from predictor.environ import MANAGEMENT
from predictor.errors import PredictorError, StoreError, without_frames
from predictor.web.request import current_record, current_store

log = logging.getLogger(__name__)

Problem = Mapping[str, Any]
Shape = Callable[[Problem], Response]  # the response body that a protocol's clients read

KEY = "problem_shapes"  # in the app's extensions
MAX_DETAIL = 500  # characters; the text can quote what the client sent
FOLDERS = re.compile(r"""(?<![\w.:~/])/(?:[^\s/'":,;]+/)+""")  # of an absolute path
START = "Send photos to POST /predict; the page is at /."
START_OF_MANAGEMENT = "This is the address of the management API; GET /models lists the models."
# Details for the errors that werkzeug raises.
ADVICE = {
    404: "There is nothing at {path}. {hint}",
    405: "{path} does not accept {method}. Use {allowed}.",
    412: "{path} is not what If-Match or If-Unmodified-Since asks for. Leave out the header.",
    413: (
        "The request is larger than {limit:,} bytes. Send a smaller photo, or fewer at once. The"
        " setting PREDICTOR_MAX_UPLOAD_BYTES raises the limit for photos."
    ),
    500: "The server failed because of a defect, not because of the request. See its log.",
}


def handle(error: Exception) -> Response:
    """Answer the current request with an error, in the protocol of its path."""
    problem = current_problem(error) | {"request_id": current_record().id}
    shapes: Mapping[str, Shape] = current_app.extensions[KEY]
    response = shapes.get("/" + request.path.split("/")[1], _as_problem)(problem)
    response.status_code = problem["status"]
    return with_headers(response, error)


def current_problem(error: Exception) -> dict[str, Any]:
    """Return problem details: ``title``, ``status``, ``code`` and ``detail``.

    Record the code, and remove the tracebacks of the error.
    """
    if isinstance(error, PredictorError):
        status, title, detail = error.status.value, error.status.phrase, str(error)
        code = error.code
        if isinstance(error, StoreError):
            detail = without_paths(detail)
    elif isinstance(error, HTTPException) and error.code is not None:
        status, title, detail = error.code, error.name, _advice(error)
        code = title.lower().replace(" ", "-")
    else:
        status, title, detail = 500, "Internal Server Error", ADVICE[500]
        code = "internal-error"
    current_record().codes.append(code)
    current_record().note_model()
    without_frames(error)  # a view's frame has the photos, and perhaps a list with the error
    detail = json_safe(detail if len(detail) <= MAX_DETAIL else detail[:MAX_DETAIL] + "…")
    return {
        "type": "about:blank", "title": title, "status": status, "code": code, "detail": detail,
    }  # fmt: skip


def without_paths(text: str) -> str:
    """Shorten the store's path to its last folder, and other absolute paths to the file's name."""
    folder = Path(current_store().settings.store).absolute()
    return FOLDERS.sub("…/", text.replace(str(folder), folder.name))


def with_headers(response: Response, error: Exception) -> Response:
    """Add the headers that an error has, such as ``Retry-After`` and ``Allow``."""
    if isinstance(error, HTTPException):
        kept = (h for h in error.get_headers() if h[0] not in ("Content-Type", "Content-Length"))
        response.headers.extend(kept)
    elif response.status_code == 405:
        response.headers["Allow"] = "GET, HEAD, OPTIONS"
    if isinstance(error, PredictorError) and error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def _advice(error: HTTPException) -> str:
    methods = {*(getattr(error, "valid_methods", None) or ())} - {"OPTIONS", "HEAD"}
    return ADVICE.get(error.code or 0, error.description or error.name).format(
        path=request.path,
        hint=START_OF_MANAGEMENT if request.environ.get(MANAGEMENT) else START,
        method=request.method,
        allowed=" or ".join(sorted(methods)),
        limit=current_app.config["MAX_CONTENT_LENGTH"],
    )


def json_safe(text: str) -> str:
    """Escape lone surrogates, which a client can send but UTF-8 cannot encode."""
    return text.encode(errors="backslashreplace").decode()


def without_file(response: Response) -> Response:
    """Return the response, or the error if Flask answers 412 with the whole static file."""
    if response.status_code != PreconditionFailed.code:
        return response
    response.close()
    return handle(PreconditionFailed())


def _as_problem(problem: Problem) -> Response:
    response = jsonify(problem)
    response.mimetype = "application/problem+json"
    return response


def handle_unexpected(error: Exception) -> Response:
    """Answer a defect of this app with 500, and write its cause only to the log."""
    fields = {"method": request.method, "path": request.path, "request_id": current_record().id}
    log.error("%(method)s %(path)s failed, %(request_id)s", fields, exc_info=error)
    return handle(error)


def register(app: Flask, shapes: Mapping[str, Shape]) -> None:
    """Answer every error of the app, including the router's 404 and 405.

    ``shapes`` maps the first part of a path, like ``/v2``, to the shape of its error responses.
    Errors on all other paths are problem details.
    """
    app.extensions[KEY] = shapes
    app.register_error_handler(PredictorError, handle)
    app.register_error_handler(HTTPException, handle)
    app.register_error_handler(Exception, handle_unexpected)
