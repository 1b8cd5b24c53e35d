"""HTTP: requests become calls of the engine. Only this package imports Flask at run time."""

from functools import partial
from typing import Any

from flask import Flask, Response
from flask.json.provider import DefaultJSONProvider

from predictor.resources import resource
from predictor.settings import FRAME_ANCESTORS, Settings
from predictor.store.folder import store_for
from predictor.store.store import Store
from predictor.web import head, management, problems, request_log, security
from predictor.web.api import explain, health, metrics, openapi, predict, preview
from predictor.web.page import views as page
from predictor.web.protocols import kserve, open_inference, torchserve
from predictor.web.relative import address
from predictor.web.request import KEY, RecordingFlask

# Each protocol has a blueprint, the first parts of its paths (PREFIXES) and the shape of its errors
# (as_error). Some protocols also have explanations, or metrics under their own names.
PROTOCOLS = (torchserve, open_inference, kserve)


class OneLineJSON(DefaultJSONProvider):
    """JSON on one line, with members in the order in which the view wrote them."""

    sort_keys = False
    ensure_ascii = False

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """Return a view's result as a JSON response."""
        body = self._parts(args[0] if args else kwargs, 2) + "\n"
        return Response(body, mimetype=self.mimetype)

    def _parts(self, value: Any, depth: int) -> str:
        """Return the JSON of each member by itself: while C writes one, no other thread runs.

        All classes of 64 images have 7 MB, which took 0.15 s.
        """
        match value:
            case dict() if depth and any(isinstance(one, list) for one in value.values()):
                parts = ((str(key), self._parts(one, depth - 1)) for key, one in value.items())
                return f"{{{', '.join(f'{self.dumps(key)}: {part}' for key, part in parts)}}}"
            case list() if depth:
                return f"[{', '.join(self._parts(one, depth - 1) for one in value)}]"
        return self.dumps(value)


def create_app(settings: Settings, store: Store | None = None) -> Flask:
    """Build the Flask app around ``store``, or around a new one made from the settings.

    The models load when the store is started or first used.
    """
    static, templates = str(resource("static")), str(resource("templates"))
    app = RecordingFlask("predictor", static_folder=static, template_folder=templates)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_upload_bytes
    if settings.frame_ancestors:
        app.config[FRAME_ANCESTORS] = " ".join(settings.frame_ancestors)
    app.add_template_global(address)
    app.json = OneLineJSON(app)
    store = app.extensions[KEY] = store or store_for(settings)
    store.metrics.add_alias(torchserve.metric_aliases)
    request_log.register(app)
    metrics.register(app)
    for module in (predict, preview, page, health, openapi, *PROTOCOLS):
        app.register_blueprint(module.blueprint)
    if settings.max_explanations:
        for blueprint in (explain.blueprint, torchserve.explanations, kserve.explanations):
            app.register_blueprint(blueprint)
    if settings.all_management_tokens:
        management.register(app)
        for protocol in (torchserve, open_inference):
            app.register_blueprint(protocol.management)
    problems.register(app, {start: p.as_error for p in PROTOCOLS for start in p.PREFIXES})
    security.register(app, settings, store.watch)
    app.after_request(problems.without_file)  # the last to be registered is the first to run
    hops = settings.trusted_proxies
    app.wsgi_app = security.behind_proxies(app.wsgi_app, hops)  # type: ignore[method-assign]
    app.extensions["head"] = security.behind_proxies(partial(head.answer, app), hops)
    return app
