"""TorchServe's management API, by the names of a store, and ours for the split."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, jsonify
from werkzeug.exceptions import Conflict, Forbidden

from predictor.errors import BadRequest, UnknownModel
from predictor.setting_parsers import NAME_PATTERN
from predictor.store import file
from predictor.store.table import VERSION, failure
from predictor.store.wanted import Wanted
from predictor.web.management import change, find, folder, members, stored
from predictor.web.params import known_among, parameters, quoted, whole_number
from predictor.web.protocols.torchserve.metrics import as_version
from predictor.web.protocols.torchserve.views import pretty
from predictor.web.request import current_store

management = Blueprint("torchserve_management", __name__)

URL = re.compile(rf"({NAME_PATTERN.pattern})(?:/{VERSION.pattern})?", re.ASCII)


@management.post("/models")
def register() -> Response:
    """Serve a version that the store has. Only a new model gets it as its default."""
    known = ("url", "model_name", "initial_workers", "synchronous")
    given = parameters(known, known_among([*members().items()], known))
    name, version = _named(given.get("url"))
    if given.get("model_name", name) != name:
        raise BadRequest(f"model_name must be absent, or the name of the folder, {name!r}.")
    route = file.read(folder()).routes.get(name)
    title = f'Model "{name}" Version: {as_version(version)}'
    if route is not None and version in route.versions:
        failed = failure(current_store().statuses(), name, str(version))
        raise Conflict(failed or f"{title} is already registered.")
    workers = _workers("initial_workers", given, 0)
    waits = not workers or _is_synchronous(given)

    def edit(folder: Path) -> Wanted:
        if route is not None:
            file.set_default(folder, name, route.default)
        return file.serve(folder, name, [version])

    change(f"register {name}/{version}", edit, name, [version], waits)
    return _status(f"{title} registered with {workers} initial workers", waits)


@management.put("/models/<model>/<version>/set-default")
def set_default(model: str, version: str) -> Response:
    """Let a version answer the requests that name none, unless there is a split."""
    _, number = find(model, version)
    edit = partial(file.set_default, name=model, version=number)
    change(f"default {model}/{number}", edit, model, [number])
    return _status(f'Default version successfully updated for model "{model}" to "{version}"')


@management.delete("/models/<model>")
@management.delete("/models/<model>/<version:version>")
def unregister(model: str, version: str | None = None) -> Response:
    """Stop serving a version, by default the default one. Its folder stays in the store."""
    route, number = find(model, version)
    if number == route.default and len(route.versions) > 1:
        raise Forbidden(f"Cannot remove default version for model {model}")
    edit = partial(file.unserve, name=model, version=number)
    change(f"unregister {model}/{number}", edit, model)
    return _status(f'Model "{model}" unregistered')


@management.put("/models/<model>")
@management.put("/models/<model>/<version:version>")
def scale(model: str, version: str | None = None) -> Response:
    """Accept at most as many workers as processes run. Each of them serves every model."""
    find(model, version)
    given = parameters(("min_worker", "max_worker", "synchronous"))
    least = _workers("min_worker", given, 1)
    if _workers("max_worker", given, least) < least:
        raise BadRequest("max_worker cannot be less than min_worker.")
    named = f"{model}, version: {version}" if version else model
    return _status(f"Workers scaled to {least} for model: {named}", _is_synchronous(given))


@management.get("/models/<model>/split")
def split(model: str) -> Response:
    """Return the weights of the versions that share the requests without a version."""
    return jsonify({str(version): weight for version, weight in find(model)[0].split.items()})


@management.put("/models/<model>/split")
def set_split(model: str) -> Response:
    """Replace the weights. An empty object removes the split."""
    given = members(is_required=True)
    weights = {find(model, version)[1]: weight for version, weight in given.items()}
    if len(weights) < len(given):
        raise BadRequest(f"The versions {', '.join(given)} must differ.")
    if not all(map(file.is_weight, weights.values())):
        raise BadRequest(f'Each version needs a weight {file.RANGE}, like {{"1": 90, "2": 10}}.')
    edit = partial(file.set_split, name=model, split=weights)
    change(f"split {model} {weights}", edit, model, weights)
    return split(model)


def _named(url: object) -> tuple[str, int]:
    """Return the model and the version that ``url`` names. No address is ever opened."""
    if not url:
        raise BadRequest("Parameter url is required.")
    if (found := URL.fullmatch(str(url))) is None:
        raise UnknownModel(
            f"Given URL {quoted(url)} does not match any allowed URL(s). Send the name of a folder"
            " in the store, like flowers or flowers/2. Addresses and archives are not accepted."
        )
    return found[1], stored(found[1], int(found[2]) if found[2] else None)


def _workers(name: str, given: Mapping[str, Any], default: int) -> int:
    """Return a number of workers. Raise BadRequest if it is above that of the processes."""
    workers, processes = whole_number(name, given), len(current_store().followers.reports())
    if workers is not None and workers > processes:
        raise BadRequest(
            f"{name} is {workers}, but {processes} processes run. WEB_CONCURRENCY sets their number"
            " at the start."
        )
    return default if workers is None else workers


def _is_synchronous(given: Mapping[str, Any]) -> bool:
    return str(given.get("synchronous")).lower() == "true"


def _status(status: str, is_done: bool = True) -> Response:
    text = status if is_done else "Processing worker updates..."
    return pretty({"status": text}, 200 if is_done else 202)
