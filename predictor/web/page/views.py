"""The web page: users choose, drop, paste or take photos. Without JavaScript, it is a form."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from secrets import token_urlsafe
from typing import Any

from flask import Blueprint, Response, jsonify, make_response, render_template, request
from werkzeug.exceptions import (
    HTTPException,
    RequestEntityTooLarge,
    TooManyRequests,
    Unauthorized,
)

from predictor.engine.ranking import Prediction
from predictor.errors import PredictorError
from predictor.models.scorer import ModelInfo
from predictor.web.params import TOP_K
from predictor.web.problems import current_problem, handle, with_headers
from predictor.web.request import (
    admitted,
    by_query,
    current_call,
    current_record,
    current_store,
    needs_slot,
    resolve,
)
from predictor.web.security import allow_frames
from predictor.web.uploads import PREDICT_FIELDS, read_upload

blueprint = Blueprint("pages", __name__)

FIELDS = replace(PREDICT_FIELDS, parameters=())
# The page loads nothing from other servers, and shows a photo from the browser's own memory.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'"
)

SAMPLES = ("cat", "espresso", "rocket")  # in static/samples; README.md has their sources


@blueprint.get("/", provide_automatic_options=False)  # OPTIONS belongs to TorchServe's protocol
def show() -> Response:
    """Return the empty page, or a liveness status to clients that prefer JSON, such as KServe's."""
    kinds = ("text/html", "application/json")
    if request.accept_mimetypes.best_match(kinds) == "application/json":
        current_store().expect_healthy()
        response = jsonify({"status": "alive"})
    else:
        response = _page()
    response.vary.add("Accept")
    return response


@blueprint.post("/", provide_automatic_options=False)
@needs_slot("prediction")
def answer() -> Response:
    """Return the page with the answers to the form's photos, or with the error."""
    with admitted() as served:
        upload, _ = read_upload(request, served.settings.max_queue, FIELDS)
        outcomes = served.classify(upload.images, _top_k(served.model.info), current_call())
    if len(outcomes) == 1 and isinstance(outcomes[0], PredictorError):
        raise outcomes[0]
    return _page([_answer(*pair) for pair in zip_longest(upload.filenames, outcomes)])


def _answer(name: str | None, outcome: list[Prediction] | PredictorError) -> dict[str, Any]:
    if isinstance(outcome, PredictorError):
        return {"name": name, "problem": current_problem(outcome), "predictions": ()}
    return {"name": name, "problem": None, "predictions": outcome}


@blueprint.errorhandler(PredictorError)
@blueprint.errorhandler(RequestEntityTooLarge)
@blueprint.errorhandler(TooManyRequests)
def error_page(error: PredictorError | HTTPException) -> Response:
    """Return the page with an error of the form. Programs that use ``GET`` get JSON."""
    if request.method != "POST":
        return handle(error)
    return with_headers(_page(problem=current_problem(error)), error)


@blueprint.errorhandler(Unauthorized)
def token_page(error: Unauthorized) -> Response:
    """Return a page for people who have closed the browser's question for the token.

    It loads nothing, because each file would make the browser ask again.
    """
    accepts = request.accept_mimetypes
    response = handle(error)
    if accepts.quality("text/html") <= accepts.quality("application/json"):
        return response
    nonce = token_urlsafe()
    given = "Authorization" in request.headers
    response.data = render_template("token.html", nonce=nonce, given=given)
    response.mimetype = "text/html"
    return allow_frames(response, f"default-src 'none'; style-src 'nonce-{nonce}'")


def _top_k(model: ModelInfo | None) -> int:
    """Return 5, or fewer if the model has fewer classes."""
    return min(TOP_K, model.classes) if model else TOP_K


def _page(
    answers: Sequence[Mapping[str, Any]] = (), problem: Mapping[str, Any] | None = None
) -> Response:
    store = current_store()
    store.start()
    loading, chosen = not store.loading.done(), store.default
    try:
        chosen = chosen and resolve(*by_query({}))
    except PredictorError as error:
        if request.args.keys() & {"model", "version"}:  # else there is no default model
            problem = problem or current_problem(error)
    several = all_served if len(all_served := store.served()) > 1 else []
    served = chosen.model if chosen else None
    model = served.info if served else None
    page = render_template(
        "index.html",
        model=model,
        chosen=chosen,
        several=several,
        named={"model": chosen.name, "version": chosen.version} if chosen and several else {},
        input=served.card.input.describe() if served else "",
        loading=loading,
        max_upload_bytes=store.settings.max_upload_bytes,
        top_k=_top_k(model),
        explains=bool(store.settings.max_explanations) and (not served or served.scorer.explains),
        guarded=bool(store.settings.all_tokens),
        answers=answers,
        problem=problem,
        request_id=current_record().id,
        samples=SAMPLES,
    )
    return allow_frames(make_response(page, problem["status"] if problem else 200), POLICY)
