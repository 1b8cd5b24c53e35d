"""Read a request's parameters from its query string, a form or its JSON."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from flask import request

from predictor.errors import BadRequest
from predictor.models.scorer import LoadedModel
from predictor.web.json_body import MAX_DIGITS

MAX_NAMES = 100  # in a query. The event loop reads it: 1,900 names took 8 ms
TOP_K = 5  # default number of classes on the page and in the protocols of other servers
# What clients write in place of a parameter's name, besides other cases, separators and plurals.
ALIKE = {
    "top_k": ("k", "top", "topn", "numclasses"),
    "class_index": ("class", "classid", "classidx"),
    "format": ("fmt", "outputformat"),
    "model": ("modelname",),
    "model_name": ("model",),
}


def quoted(value: object) -> str:
    """Return a client's value for a message. To write all of a long list would take a second."""
    if isinstance(value, list | dict):
        return "an array" if isinstance(value, list) else "an object"
    return repr(value[:100] if isinstance(value, str) else value)


def parameters(known: Collection[str], further: Sequence[tuple[str, Any]] = ()) -> dict[str, Any]:
    """Return the known parameters of the query string, and the ``further`` ones of the body.

    Raises:
        BadRequest: a parameter has two values, or the query has a name that resembles a known one,
            or more than :data:`MAX_NAMES`.
    """
    if request.query_string.count(b"&") >= MAX_NAMES:
        raise BadRequest(f"The query has more than {MAX_NAMES} parameters.")
    query, found = known_among(list(request.args.items(multi=True)), known), dict[str, Any]()
    for name, value in (*query, *further):
        if value is not None:
            before = found.setdefault(name, value)
            if _text(before) != _text(value):
                raise BadRequest(
                    f"{name} is given 2 times, as {quoted(before)} and {quoted(value)}. Send one."
                )
    return found


def known_among(
    members: Sequence[tuple[str, Any]], known: Collection[str]
) -> list[tuple[str, Any]]:
    """Return the members that are known parameters.

    Raises:
        BadRequest: a name is not known, but resembles a known one.
    """
    meant = {
        one.removesuffix("s"): parameter
        for parameter in known
        for one in (parameter.replace("_", ""), *ALIKE.get(parameter, ()))
    }
    for name in (name for name, _ in members if name not in known):
        if parameter := meant.get(re.sub("[^a-z0-9]|s$", "", name[:100].lower())):
            raise BadRequest(f"There is no parameter {name[:100]!r}. Did you mean {parameter}?")
    return [(name, value) for name, value in members if name in known]


def _text(value: object) -> str:
    number = as_integer(value)
    return str(value if number is None else number)


def whole_number(name: str, given: Mapping[str, Any] | None = None) -> int | None:
    """Return a non-negative integer of ``given``, or of the query string, or None.

    The caller checks its range.

    Raises:
        BadRequest: the parameter is not a whole number, or has two values.
    """
    value = (parameters([name]) if given is None else given).get(name)
    if value is None:
        return None
    number = as_integer(value)
    if isinstance(value, str) and re.fullmatch(rf"[0-9]{{1,{MAX_DIGITS}}}", value):
        number = int(value)
    if number is None or number < 0:
        accepted = f"a whole number of at most {MAX_DIGITS} digits"
        raise BadRequest(f"{name} is {quoted(value)}; it must be {accepted}.")
    return number


def top_k_of(given: Mapping[str, Any], model: LoadedModel) -> int | None:
    """Return ``top_k`` for a protocol of other servers, or None for a model of several labels."""
    top_k = whole_number("top_k", given)
    return TOP_K if top_k is None and model.card.output.threshold is None else top_k


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


def as_target(given: object, class_index: int | None) -> int | None:
    """Return an instance's ``target``, the class index to explain; if absent, the request's.

    Raises:
        BadRequest: ``target`` is not an integer, or not the request's ``class_index``.
    """
    if given is None:
        return class_index
    if (target := as_integer(given)) is None:
        raise BadRequest(f'"target" is {quoted(given)}; it must be a class index.')
    if class_index not in (None, target):
        raise BadRequest(f'"target" is {target}, but class_index is {class_index}. Send one.')
    return target
