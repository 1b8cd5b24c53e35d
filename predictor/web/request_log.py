"""One line in the log for each request, and its id and its times in the answer's headers."""

from __future__ import annotations

import logging
from http import HTTPStatus
from time import monotonic
from typing import Any

from flask import Flask, Response, request

from predictor.web.probes import is_probed
from predictor.web.request import Exchange, current_exchange

log = logging.getLogger(__name__)
PING = "torchserve.ping"  # which knows no other status for a model that is being loaded


def register(app: Flask) -> None:
    """Finish every answer of the app here; registered first, so that it is the last to see it."""
    app.after_request(finish)


def finish(response: Response) -> Response:
    """Name the request to its caller, and log it."""
    exchange = current_exchange()
    split = {step: s * 1000 for step, s in exchange.timings.known().items()}
    response.headers["X-Request-ID"] = exchange.id
    if split:
        timing = ", ".join(f"{step};dur={ms:.2f}" for step, ms in split.items())
        response.headers["Server-Timing"] = timing
    # What machines ask every few seconds is of interest only when it fails.
    if response.status_code >= 400 or not (is_probed() or request.path == "/metrics"):
        _log(response, exchange, split)
    return response


def _log(response: Response, exchange: Exchange, split: dict[str, float]) -> None:
    """Neither the query nor any header: that is where tokens are."""
    fields: dict[str, Any] = {
        "method": request.method,
        "path": request.path,
        "status": response.status_code,
        "bytes": response.content_length or 0,
        "duration_ms": round((monotonic() - exchange.began) * 1000, 2),
    }
    line = "%(method)s %(path)s %(status)d, %(bytes)d bytes, %(duration_ms).1f ms"
    if split:
        fields |= {f"{step}_ms": round(ms, 2) for step, ms in split.items()}
        line += f" ({', '.join(f'{step} %({step}_ms).1f' for step in split)})"
    if exchange.codes:
        fields["code"] = ",".join(dict.fromkeys(exchange.codes))
        line += ", %(code)s"
    if exchange.class_ids:
        fields["class_id"] = ",".join(exchange.class_ids)
        line += ", %(class_id)s"
    fields["request_id"] = exchange.id
    log.log(_level(response.status_code), line + ", %(request_id)s", fields)


def _level(status: int) -> int:
    if status < 500:
        return logging.INFO
    failed = status == HTTPStatus.INTERNAL_SERVER_ERROR and request.endpoint != PING
    return logging.ERROR if failed else logging.WARNING
