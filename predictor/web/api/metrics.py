"""``GET /metrics``, and what each request adds to it."""

from __future__ import annotations

from time import monotonic

from flask import Blueprint, Flask, Response, request
from prometheus_client.exposition import choose_encoder

from predictor.engine.metrics import Metrics
from predictor.web.current import current_classifier, current_metrics
from predictor.web.probes import is_probed
from predictor.web.request import current_exchange

blueprint = Blueprint("metrics", __name__)

# A client can make up methods and addresses without end; each would be a series for ever.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@blueprint.get("/metrics")
def metrics() -> Response:
    """All numbers, in the format that the scraper asks for; it takes no place of a request's."""
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return Response(encode(current_metrics().registry()), content_type=content_type)


def register(app: Flask) -> None:
    """Count every answer of the app, and serve the counts."""
    app.extensions["metrics"] = Metrics(app.extensions["classifier"])
    app.after_request(observe)
    app.register_blueprint(blueprint)


def observe(response: Response) -> Response:
    """Count a request that has been answered."""
    metrics, exchange = current_metrics(), current_exchange()
    route = request.url_rule.rule if request.url_rule else "unmatched"
    method = request.method if request.method in METHODS else "other"
    metrics.requests.labels(route, method, response.status_code).inc()
    metrics.request_seconds.labels(route).observe(monotonic() - exchange.began)
    metrics.observe(exchange.timings)
    if exchange.timings.decode is not None:
        outcome = "success" if response.status_code < 400 else "fail"
        metrics.prediction_seconds.labels(outcome).observe(monotonic() - exchange.began)
        metrics.last_prediction.set_to_current_time()
    for code in () if is_probed() else exchange.codes:
        metrics.rejected.labels(code).inc()
    if exchange.class_ids:
        model = current_classifier().engine().info.name
        metrics.predictions.labels(model).inc(len(exchange.class_ids))
    return response
