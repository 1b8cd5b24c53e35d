"""HTTP: the only package that imports Flask."""

from __future__ import annotations

from io import BytesIO
from typing import IO, Any

from flask import Flask, Response
from flask.json.provider import DefaultJSONProvider

from predictor.engine.classifier import Classifier
from predictor.web import problems, request_log, security
from predictor.web.api import explain, health, metrics, openapi, predict
from predictor.web.page import views as pages
from predictor.web.protocols import kserve, open_inference, torchserve
from predictor.web.request import ObservedRequest

# Each is a file: a blueprint, the first parts of its addresses, and the shape of its errors.
PROTOCOLS = (torchserve, open_inference, kserve)


class InMemoryRequest(ObservedRequest):
    """Keeps uploads in memory, which the body limit bounds: no photo ever touches a disk."""

    def _get_file_stream(self, *_args: Any, **_kwargs: Any) -> IO[bytes]:
        return BytesIO()


class OneLineJSON(DefaultJSONProvider):
    """Answers as the contract prints them: one line, in the order written, spaces between."""

    sort_keys = False
    ensure_ascii = False

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """Serialise a view's answer."""
        body = self.dumps(args[0] if args else kwargs) + "\n"
        return Response(body, mimetype=self.mimetype)


def register(app: Flask, classifier: Classifier) -> None:
    """Put the classifier behind the app's URLs."""
    limit = classifier.settings.max_upload_bytes
    app.config["MAX_CONTENT_LENGTH"] = limit
    app.config["MAX_FORM_MEMORY_SIZE"] = limit  # Flask's own 500 kB would refuse base64 in a form
    app.request_class = InMemoryRequest
    app.json = OneLineJSON(app)
    app.extensions["classifier"] = classifier
    request_log.register(app)
    metrics.register(app)
    for module in (predict, pages, health, openapi, *PROTOCOLS):
        app.register_blueprint(module.blueprint)
    if classifier.settings.max_explanations:
        explain.register(app, classifier)
        for blueprint in (torchserve.explanations, kserve.explanations):
            app.register_blueprint(blueprint)
    problems.register(app, {start: p.as_error for p in PROTOCOLS for start in p.PREFIXES})
    security.register(app, classifier.settings)
