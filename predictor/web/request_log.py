"""Log one line for each request, and add its id, model and timings to the response's headers."""

import logging
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from flask import Flask, Response, request

from predictor.web.request import RequestRecord, current_record, is_probed

log = logging.getLogger(__name__)


def register(app: Flask) -> None:
    """Log every response of the app. Call this first: Flask runs after_request in reverse order."""
    app.after_request(finish)


def finish(response: Response) -> Response:
    """Add the request's id, model and timings to the response, and log it."""
    record = current_record()
    split = {step: s * 1000 for step, s in record.call.timings.known().items()}
    response.headers["X-Request-ID"] = record.id
    if record.call.model:
        response.headers["X-Model-Name"] = quote(record.call.model)
        response.headers["X-Model-Version"] = record.call.version
    if split:
        timing = ", ".join(f"{step};dur={ms:.2f}" for step, ms in split.items())
        response.headers["Server-Timing"] = timing
    # Probes and scrapes come every few seconds: they are logged only when they fail.
    if response.status_code >= 400 or not (is_probed() or request.path == "/metrics"):
        _log(response, record, split)
    return response


def _log(response: Response, record: RequestRecord, split: dict[str, float]) -> None:
    """Write the log line, without the query and the headers, because they can contain tokens."""
    fields: dict[str, Any] = {
        "method": request.method,
        "path": request.path,
        "status": response.status_code,
        "bytes": response.content_length or 0,
        "duration_ms": round(record.seconds * 1000, 2),
    }
    line = "%(method)s %(path)s %(status)d, %(bytes)d bytes, %(duration_ms).1f ms"
    if split:
        fields |= {f"{step}_ms": round(ms, 2) for step, ms in split.items()}
        line += f" ({', '.join(f'{step} %({step}_ms).1f' for step in split)})"
    if record.codes:
        fields["code"] = ",".join(dict.fromkeys(record.codes))
        line += ", %(code)s"
    if record.call.class_ids:
        fields["class_id"] = ",".join(record.call.class_ids)
        line += ", %(class_id)s"
    if record.call.model:
        fields |= {"model": record.call.model, "version": record.call.version}
        line += ", %(model)s/%(version)s"
    fields["request_id"] = record.id
    log.log(_level(response.status_code, record.codes), line + ", %(request_id)s", fields)


def _level(status: int, codes: list[str]) -> int:
    if status < 500:
        return logging.INFO
    # A 500 without a code is not an error: TorchServe's ping answers so while the model loads.
    failed = status == HTTPStatus.INTERNAL_SERVER_ERROR and codes
    return logging.ERROR if failed else logging.WARNING
