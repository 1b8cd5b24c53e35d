"""Triton's extension that loads and unloads the models of a store."""

from functools import partial
from typing import Any

from flask import Blueprint

from predictor.errors import BadRequest
from predictor.store import file
from predictor.web.management import change, find, folder, members, stored
from predictor.web.params import parameters_of

management = Blueprint("open_inference_management", __name__, url_prefix="/v2/repository/models")


@management.post("/<model>/load")
def load(model: str) -> dict[str, Any]:
    """Serve only and always the newest version; of a model that is served, wait for its versions.

    The model is loaded as the store has it: a configuration or files in the request are refused.
    """
    for name in parameters_of(members()):
        raise BadRequest(
            f"The parameter {name!r} is not accepted: the store has the model's files."
        )
    route = file.read(folder()).routes.get(model)
    edit = None if route else partial(file.serve, name=model, which="newest")
    versions = route.versions if route else [stored(model)]
    change(f"load {model}", edit, model, versions)
    return {"name": model, "load": True}


@management.post("/<model>/unload")
def unload(model: str) -> dict[str, Any]:
    """Stop serving all versions of a model. Triton's parameter ``unload_dependents`` is ignored."""
    parameters_of(members())
    find(model)
    change(f"unload {model}", partial(file.unserve, name=model), model)
    return {"name": model, "unload": True}
