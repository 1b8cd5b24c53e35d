"""Read a request's parameters from its query string or its JSON."""

import re
from typing import Any

from flask import request

from predictor.errors import BadRequest

TOP_K = 5  # default number of classes on the page and in the protocols of other servers


def quoted(value: object) -> str:
    """Return a client's value for a message. To write all of a long list would take a second."""
    if isinstance(value, list | dict):
        return "an array" if isinstance(value, list) else "an object"
    return repr(value[:100] if isinstance(value, str) else value)


def parameter(name: str) -> str | None:
    """Return a parameter of the query string, or None; raise BadRequest if it is repeated."""
    given = request.args.getlist(name)
    if len(given) > 1:
        raise BadRequest(f"{name} is given {len(given)} times; it may be given once.")
    return given[0] if given else None


def whole_number(name: str) -> int | None:
    """Return a non-negative integer of the query string, or None. The caller checks its range.

    Raises:
        BadRequest: the parameter is not a whole number, or is repeated.
    """
    text = parameter(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise BadRequest(f"{name} is {text!r}; it must be a whole number.")
    return int(text)


def as_integer(value: object) -> int | None:
    """Return a JSON number that is an integer (3 or 3.0) as int; None for everything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def parameters_of(part: dict[str, Any]) -> dict[str, Any]:
    """Return the object ``parameters`` of a request, an input or an output; {} if it is absent."""
    if (parameters := part.get("parameters")) is None:
        return {}
    if not isinstance(parameters, dict):
        raise BadRequest('"parameters" must be an object.')
    return parameters


def target_of(instance: object) -> int | None:
    """Return an instance's ``target``, the class index to explain; None if it is absent.

    Raises:
        BadRequest: ``target`` is not an integer.
    """
    given = instance.get("target") if isinstance(instance, dict) else None
    target = as_integer(given)
    if given is not None and target is None:
        raise BadRequest(f'"target" is {quoted(given)}; it must be a class index.')
    return target
