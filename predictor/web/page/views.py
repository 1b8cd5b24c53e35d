"""The page: choose, drop, paste or take photos; without JavaScript, a form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from flask import (
    Blueprint,
    Response,
    current_app,
    jsonify,
    make_response,
    render_template,
    request,
)
from werkzeug.exceptions import HTTPException, TooManyRequests

from predictor.engine.ranking import Prediction
from predictor.errors import PredictorError, ServiceError
from predictor.models.info import ModelInfo
from predictor.web.api import health
from predictor.web.current import current_classifier
from predictor.web.problems import describe
from predictor.web.request import current_exchange
from predictor.web.service import classify, explains
from predictor.web.uploads import read_upload

blueprint = Blueprint("pages", __name__)

TOP_K = 5
# The page needs nothing from anywhere else, and shows the photo from the browser's own memory.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors {ancestors}"
)
ANCESTORS = "FRAME_ANCESTORS"  # in the app's config: who may show the page in a frame


@blueprint.get("/", provide_automatic_options=False)  # OPTIONS is TorchServe's
def show() -> Response:
    """The page, empty; a client that would rather have JSON, KServe's, wants a sign of life."""
    kinds = ("text/html", "application/json")
    wants_json = request.accept_mimetypes.best_match(kinds) == "application/json"
    response = jsonify(health.healthz()) if wants_json else _page()
    response.vary.add("Accept")
    return response


@blueprint.post("/", provide_automatic_options=False)
def answer() -> Response:
    """The page with the answers to the form's photos, or with the reason why there are none."""
    classifier = current_classifier()
    try:
        with classifier.admit():
            upload = read_upload(request, classifier.settings.max_queue)
            outcomes = classify(upload.images, _top_k(classifier.engine().info))
        if len(outcomes) == 1 and isinstance(outcomes[0], PredictorError):
            raise outcomes[0]
    except (PredictorError, HTTPException) as error:
        return _refusal(error, error.retry_after_s if isinstance(error, ServiceError) else None)
    names = [file.filename for file in request.files.getlist("file")]
    return _page([_answer(*pair) for pair in zip_longest(names, outcomes)])


def _answer(name: str | None, outcome: list[Prediction] | PredictorError) -> dict[str, Any]:
    if isinstance(outcome, PredictorError):
        return {"name": name, "problem": describe(outcome), "predictions": ()}
    return {"name": name, "problem": None, "predictions": outcome}


@blueprint.errorhandler(TooManyRequests)
def answer_later(error: TooManyRequests) -> Response:
    """The page with the reason why the form was not even looked at."""
    return _refusal(error, error.retry_after)


def _refusal(error: PredictorError | HTTPException, retry_after: object) -> Response:
    response = _page(problem=describe(error))
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    return response


def _top_k(model: ModelInfo | None) -> int:
    """Five, or as many as a model of fewer classes has."""
    return min(TOP_K, model.classes) if model else TOP_K


def _page(
    answers: Sequence[Mapping[str, Any]] = (), problem: Mapping[str, Any] | None = None
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
        explains=explains(),
        guarded=bool(classifier.settings.tokens + classifier.settings.tokens_file),
        answers=answers,
        problem=problem,
        request_id=current_exchange().id,
    )
    response = make_response(page, problem["status"] if problem else 200)
    ancestors = current_app.config.get(ANCESTORS, "'none'")
    response.headers["Content-Security-Policy"] = POLICY.format(ancestors=ancestors)
    return response
