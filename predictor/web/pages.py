"""The page: choose, drop or paste a photo; without JavaScript, a form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Blueprint, Response, current_app, make_response, render_template, request
from werkzeug.exceptions import HTTPException, TooManyRequests

from predictor.errors import PredictorError
from predictor.info import ModelInfo
from predictor.ranking import Prediction
from predictor.web.exchange import current_exchange
from predictor.web.extension import current_classifier
from predictor.web.predict import classify
from predictor.web.problems import describe
from predictor.web.uploads import read_upload

blueprint = Blueprint("pages", __name__)

TOP_K = 5
# The page needs nothing from anywhere else, and shows the photo from the browser's own memory.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors {ancestors}"
)
ANCESTORS = "FRAME_ANCESTORS"  # in the app's config: who may show the page in a frame


@blueprint.get("/")
def show() -> Response:
    """The page, empty."""
    return _page()


@blueprint.post("/")
def answer() -> Response:
    """The page with the answer to the form's photo, or with the reason why there is none."""
    classifier = current_classifier()
    try:
        with classifier.admit():
            upload = read_upload(request, classifier.settings.max_queue)
            outcome = classify(classifier, upload, _top_k(classifier.engine().info))[0]
        if isinstance(outcome, PredictorError):
            raise outcome
    except (PredictorError, HTTPException) as error:
        return _page(problem=describe(error))
    return _page(predictions=outcome)


@blueprint.errorhandler(TooManyRequests)
def answer_later(error: TooManyRequests) -> Response:
    """The page with the reason why the form was not even looked at."""
    response = _page(problem=describe(error))
    response.headers["Retry-After"] = str(error.retry_after)
    return response


def _top_k(model: ModelInfo | None) -> int:
    """Five, or as many as a model of fewer classes has."""
    return min(TOP_K, model.classes) if model else TOP_K


def _page(
    predictions: Sequence[Prediction] = (), problem: Mapping[str, Any] | None = None
) -> Response:
    classifier = current_classifier()
    classifier.start()
    loaded = classifier.loading.done()  # asked once: it may be done the next moment
    model = classifier.engine().info if loaded and classifier.ailment() is None else None
    page = render_template(
        "index.html",
        model=model,
        loading=not loaded,
        max_upload_bytes=classifier.settings.max_upload_bytes,
        top_k=_top_k(model),
        predictions=predictions,
        problem=problem,
        request_id=current_exchange().id,
    )
    response = make_response(page, problem["status"] if problem else 200)
    ancestors = current_app.config.get(ANCESTORS, "'none'")
    response.headers["Content-Security-Policy"] = POLICY.format(ancestors=ancestors)
    return response
