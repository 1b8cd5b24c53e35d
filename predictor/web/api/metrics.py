"""``GET /metrics``, and the counting of each request."""

from flask import Blueprint, Flask, Response, request
from prometheus_client.exposition import choose_encoder

from predictor.engine.readings import Readings
from predictor.web.request import current_record, current_store, is_probed

blueprint = Blueprint("metrics", __name__)

# Other methods count as ``other``: a client can invent methods, and each would add a series.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@blueprint.get("/metrics")
def metrics() -> Response:
    """Return all metrics, without an admission slot."""
    return exposition(current_store().metrics.readings())


def exposition(readings: Readings) -> Response:
    """Return the metrics in the format that the scraper asks for."""
    try:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    except (TypeError, ValueError):  # a version that is not a number
        encode, content_type = choose_encoder("")
    return Response(readings.text(encode, content_type), content_type=content_type)


def register(app: Flask) -> None:
    """Count every response of the app, and serve the counts."""
    app.after_request(record)
    app.register_blueprint(blueprint)


def record(response: Response) -> Response:
    """Count a request that has been answered."""
    record = current_record()
    current_store().metrics.record(
        route=request.url_rule.rule if request.url_rule else "unmatched",
        method=request.method if request.method in METHODS else "other",
        status=response.status_code,
        seconds=record.seconds,
        call=record.call,
        codes=() if is_probed() else record.codes,
    )
    return response
