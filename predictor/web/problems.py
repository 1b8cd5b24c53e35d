"""The one place where an error becomes a response: RFC 9457 problem details, or a dialect's."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, Response, current_app, jsonify, request
from werkzeug.exceptions import HTTPException

from predictor.errors import PredictorError, ServiceError
from predictor.web.request import current_exchange

log = logging.getLogger(__name__)

Problem = Mapping[str, Any]
Dialect = Callable[[Problem], Response]  # the body that a protocol's clients read

FIRST_PART = re.compile("^/*([^/?]*)")
MAX_DETAIL = 500  # characters; what a caller sent can be in it
# What werkzeug's own refusals mean here, and what to do about them.
ADVICE = {
    404: "Nothing is served at {path}. Photos go to POST /predict; the page is at /.",
    405: "{method} is not answered at {path}; {allowed} is.",
    413: "The request is larger than {limit:,} bytes. Send a smaller photo, or fewer at once.",
    500: "Something failed on our side. It has been logged; it is not your photo's fault.",
}


def describe(error: Exception) -> dict[str, Any]:
    """An error as problem details: ``title``, ``status``, ``code``, and a ``detail`` to act on."""
    if isinstance(error, PredictorError):
        return _problem(error.status.value, error.status.phrase, error.code, str(error))
    if not isinstance(error, HTTPException) or error.code is None:
        return _problem(500, "Internal Server Error", "internal-error", ADVICE[500])
    detail = ADVICE.get(error.code, error.description or error.name).format(
        path=request.path,
        method=request.method,
        allowed=" or ".join(
            sorted({*(getattr(error, "valid_methods", None) or ())} - {"OPTIONS", "HEAD"})
        ),
        limit=current_app.config["MAX_CONTENT_LENGTH"],
    )
    return _problem(error.code, error.name, error.name.lower().replace(" ", "-"), detail)


def sayable(text: str) -> str:
    """Text as JSON can carry it: a caller's may have halves of characters."""
    return text.encode(errors="backslashreplace").decode()


def _problem(status: int, title: str, code: str, detail: str) -> dict[str, Any]:
    detail = sayable(detail if len(detail) <= MAX_DETAIL else detail[:MAX_DETAIL] + "…")
    current_exchange().codes.append(code)
    return {
        "type": "about:blank",
        "title": title,
        "status": status,
        "code": code,
        "detail": detail,
    }


def answer(error: Exception) -> Response:
    """An error as a response, with the headers that belong to it (Allow, Retry-After)."""
    problem = describe(error) | {"request_id": current_exchange().id}
    response = say(problem, request.path)
    if isinstance(error, HTTPException):
        kept = (h for h in error.get_headers() if h[0] not in ("Content-Type", "Content-Length"))
        response.headers.extend(kept)
    if isinstance(error, ServiceError) and error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def say(problem: Problem, path: str) -> Response:
    """A problem in the words of an address's protocol; an unknown one belongs to no blueprint."""
    dialects: Mapping[str, Dialect] = current_app.extensions["dialects"]
    response = dialects.get("/" + FIRST_PART.findall(path)[0], _as_problem)(problem)
    response.status_code = problem["status"]
    return response


def _as_problem(problem: Problem) -> Response:
    response = jsonify(problem)
    response.mimetype = "application/problem+json"
    return response


def answer_unexpected(error: Exception) -> Response:
    """A 500 that is a defect of ours: the log has the cause, the caller has not."""
    fields = {"method": request.method, "path": request.path, "request_id": current_exchange().id}
    log.error("%(method)s %(path)s failed, %(request_id)s", fields, exc_info=error)
    return answer(error)


def register(app: Flask, dialects: Mapping[str, Dialect]) -> None:
    """Answer every error of the app here, the router's 404 and 405 too.

    Args:
        app: the app.
        dialects: by an address's first part, as in ``/v2``; elsewhere it is problem details.
    """
    app.extensions["dialects"] = dialects
    app.register_error_handler(PredictorError, answer)
    app.register_error_handler(HTTPException, answer)
    app.register_error_handler(Exception, answer_unexpected)
