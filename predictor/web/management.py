"""What the management APIs of all protocols share: one change at a time, and a log of their use."""

import hashlib
import logging
from collections.abc import Collection
from pathlib import Path
from threading import Lock
from typing import Any

from flask import Flask, Response, current_app, g, request
from werkzeug.exceptions import Conflict

from predictor.environ import MANAGEMENT
from predictor.errors import BadRequest, UnknownModel, UnknownVersion
from predictor.store import changes, file
from predictor.store.changes import Edit
from predictor.store.layout import versions
from predictor.store.table import VERSION
from predictor.store.wanted import Route
from predictor.web.json_body import parse_json
from predictor.web.request import current_store
from predictor.web.uploads import read_body

log = logging.getLogger(__name__)

BLUEPRINTS = ("torchserve_management", "open_inference_management")
# Further views that answer at the management API's own address, with a management token.
READING = ("torchserve.models", "torchserve.model_details", "open_inference.index")
TURN = "change"  # of the lock in the app's extensions


def register(app: Flask) -> None:
    """Log each use of the management API. Each process makes one change at a time."""
    app.extensions[TURN] = Lock()
    app.after_request(_log)


def is_managed() -> bool:
    """Return whether the current request needs a management token."""
    return bool(request.environ.get(MANAGEMENT)) or request.blueprint in BLUEPRINTS


def change(
    what: str, edit: Edit | None, name: str, needed: Collection[int] = (), wait: bool = True
) -> None:
    """Change the store for the current request, as :func:`changes.make` does, and log ``what``."""
    g.change, turn = what, current_app.extensions[TURN]
    if not turn.acquire(blocking=False):  # a request that waits would hold a thread
        raise Conflict("Another change is in progress. Retry when it has been answered.")
    try:
        changes.make(current_store(), edit, name, needed, wait)
    finally:
        turn.release()


def folder() -> Path:
    """Return the folder of the store."""
    return Path(current_store().settings.store)


def find(name: str, version: str | None = None) -> tuple[Route, int]:
    """Return how a model is to be served, and the number of a version, by default the default.

    Raises:
        UnknownModel, UnknownVersion: it is not to be served.
    """
    routes = file.read(folder()).routes
    if (route := routes.get(name)) is None:
        raise UnknownModel(f"Model not found: {name}. Served are: {file.listed(routes)}.")
    number = VERSION.fullmatch(str(route.default) if version is None else version)
    if number is None or int(number[1]) not in route.versions:
        raise UnknownVersion(f"Model version: {version} is not served of {name}. See /models.")
    return route, int(number[1])


def stored(name: str, version: int | None = None) -> int:
    """Return a version of a model in the store, by default the newest.

    Raises:
        UnknownModel, UnknownVersion: the store does not have it.
    """
    if not (there := versions(folder())).get(name):
        raise UnknownModel(f"Model not found: {name}. The store has: {file.listed(there)}.")
    if version not in (None, *there[name]):
        raise UnknownVersion(f"Model version: {version} is not in the store for model: {name}.")
    return version or max(there[name])


def members(is_required: bool = False) -> dict[str, Any]:
    """Return the members of the JSON body; {} without a body, unless one is required."""
    content = parse_json(body) if (body := read_body(request)) else None if is_required else {}
    if not isinstance(content, dict):
        raise BadRequest(f"The body must be a JSON object{'' if is_required else ' or empty'}.")
    return content


def _log(response: Response) -> Response:
    if is_managed():
        token = request.headers.get("Authorization", "").partition(" ")[2].strip()
        fields = {
            "token": hashlib.sha256(token.encode()).hexdigest()[:8] if token else "none",
            "client": request.remote_addr,
            "change": g.get("change", f"{request.method} {request.path}"),
            "status": response.status_code,
        }
        log.info("Token %(token)s of %(client)s: %(change)s, status %(status)d", fields)
    return response
