"""The OpenAPI description of the app that is running.

A YAML file beside each protocol's module says what its operations take and return.
This module removes operations that the app does not serve, fills in the app's limits and names,
and adds the errors that all operations share.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from flask import current_app, request

import predictor
from predictor.store.store import Store
from predictor.web.management import BLUEPRINTS
from predictor.web.params import TOP_K
from predictor.web.protocols.open_inference.views import TENSOR_SUFFIX
from predictor.web.relative import relative
from predictor.web.request import by_query, current_store, is_probe
from predictor.web.security import COSTLY

WEB = Path(__file__).parent
FIRST = ("common", "predict")  # files; the others follow in alphabetical order
METHODS = ("get", "put", "post", "delete", "options", "patch", "trace")  # that a path item has
# Headers of an error's response.
HEADERS = {401: ("WWW-Authenticate",), **dict.fromkeys((408, 429, 503), ("Retry-After",))}
# Errors that a request with a body can get before a view is called.
OF_BODIES = {408, 413, 503}

Node = dict[str, Any]  # of the document
UNKNOWN = object()  # stands for a fact that the app does not know yet


def description(indent: int | None = None) -> bytes:
    """Return :func:`document` as JSON. It is made again when what is served has changed."""
    return _json(indent, current_store(), json.dumps(_facts()))


# Some proxies let each client choose the path prefix. The facts are text, because the cache must
# not keep a model that is no longer served.
@lru_cache(maxsize=8)
def _json(indent: int | None, _store: Store, facts: str) -> bytes:
    described = document(json.loads(facts))
    return (json.dumps(described, indent=indent, ensure_ascii=False) + "\n").encode()


def document(facts: Mapping[str, Any]) -> Node:
    """Return the description of the current app, as OpenAPI 3.1.

    Until a model is loaded, the description has no model name and no number of classes.
    """
    described: Node = _fill(_descriptions(), facts)
    paths, served = described["paths"], _served()
    for path, method, _ in list(_operations(paths)):
        if (path, method) not in served:
            del paths[path][method]
    described["paths"] = {p: item for p, item in paths.items() if item.keys() - {"parameters"}}
    _secure(described, served)
    _add_refusals(described, served)
    return described


@cache
def _descriptions() -> Node:
    """Merge all YAML files. Each operation gets its operationId and the shape of its errors."""
    import yaml  # here: a server starts without it

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # takes an eighth of the time
    merged: Node = {}
    for file in sorted(WEB.rglob("*.yaml"), key=lambda f: (f.stem not in FIRST, f.stem)):
        part = yaml.load(file.read_text(encoding="utf-8"), loader)
        shape = part.pop("x-error", {})
        part["paths"] = {path: dict(item) for path, item in part.get("paths", {}).items()}
        for path, method, operation in _operations(part["paths"]):
            named = {"operationId": _name(operation["operationId"], path, method, part["paths"])}
            part["paths"][path][method] = {"x-error": shape} | operation | named
        _merge(merged, part)
    return merged


def _merge(merged: Node, part: Node) -> None:
    for key, value in part.items():
        if isinstance(value, dict):
            _merge(merged.setdefault(key, {}), value)
        elif isinstance(value, list):
            merged[key] = merged.get(key, []) + value
        else:
            merged[key] = value


def _operations(paths: Node) -> Iterator[tuple[str, str, Node]]:
    for path, item in paths.items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def _name(name: str, path: str, method: str, paths: Node) -> str:
    """Return a unique operationId: one description may serve several methods and two paths."""
    version = "_version" if "{version}" in path else ""
    first = next(key for key in paths[path] if key in METHODS)
    return name + version + ("" if method == first else f"_{method}")


def _facts() -> Mapping[str, Any]:
    """Return the values that replace the ``${…}`` in the descriptions."""
    store = current_store()
    settings = store.settings
    facts: dict[str, Any] = {
        "version": predictor.__version__,
        "max_bytes": settings.max_upload_bytes,
        "max_pixels": settings.max_pixels,
        "max_images": settings.max_queue,
        "max_explanations": settings.max_explanations,
        "request_timeout_s": f"{settings.request_timeout_s:g}",
        "rate_limit": " and ".join(map(str, settings.rate_limit)),
        "servers": [{"url": _root()}],
    }
    if not (served := store.served()):
        return facts
    classes = max(len(one.model.labels) for one in served)
    shapes = [one.model.scorer.preprocessing.shape for one in served]
    heights, widths, channels = (sorted(set(sizes)) for sizes in zip(*shapes, strict=True))
    names, versions = dict.fromkeys(one.name for one in served), {one.version for one in served}
    return facts | {
        "models": [*names],
        "models_and_tensors": [name + end for name in names for end in ("", TENSOR_SUFFIX)],
        "versions": [str(version) for version in sorted(versions)],
        "dotted_versions": [f"{version}.0" for version in sorted(versions)],
        "classes": classes,
        "last_class": classes - 1,
        "top_k": min(TOP_K, classes),
        "channels": channels,
        "heights": heights,
        "widths": widths,
    }


def _root() -> str:
    """Return the app's address, relative to the document's."""
    return request.script_root or relative("/").rstrip("/")


def _fill(node: Any, facts: Mapping[str, Any]) -> Any:
    """Return a copy with the facts filled in; nodes that need an unknown fact are left out."""
    if isinstance(node, dict):
        filled = ((key, _fill(value, facts)) for key, value in node.items())
        return {key: value for key, value in filled if value is not UNKNOWN}
    if isinstance(node, list):
        items = [value for item in node if (value := _fill(item, facts)) is not UNKNOWN]
        return items if items or not node else UNKNOWN
    return _fill_text(node, facts) if isinstance(node, str) and "${" in node else node


def _fill_text(text: str, facts: Mapping[str, Any]) -> Any:
    names = re.findall(r"\$\{(\w+)\}", text)
    if not facts.keys() >= set(names):
        return UNKNOWN
    if text == f"${{{names[0]}}}":
        return facts[names[0]]
    for name in names:
        value = facts[name]
        text = text.replace(f"${{{name}}}", f"{value:,}" if isinstance(value, int) else value)
    return text


def _served() -> dict[tuple[str, str], str]:
    """Return the endpoint of each path and method, without those that Flask adds itself.

    The management API's are left out if they are at another address.
    """
    elsewhere = bool(current_store().settings.management_bind)
    return {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower()): rule.endpoint
        for rule in current_app.url_map.iter_rules()
        for method in rule.methods or ()
        if method != "HEAD"
        and not (elsewhere and _is_management(rule.endpoint))
        and not (method == "OPTIONS" and getattr(rule, "provide_automatic_options", False))
    }


def _secure(described: Node, served: Mapping[tuple[str, str], str]) -> None:
    """Add the security schemes if the app requires a token. Probes require no token."""
    schemes = described["components"].pop("securitySchemes")
    management = {"management": schemes.pop("management")}
    if any(map(_is_management, served.values())):
        described["components"]["securitySchemes"] = management
    if not _has_tokens():
        return
    described["components"].setdefault("securitySchemes", {}).update(schemes)
    described["security"] = [{name: []} for name in schemes]
    for path, method, operation in _operations(described["paths"]):
        if is_probe(served[path, method]):
            operation["security"] = []


def _is_management(endpoint: str) -> bool:
    return endpoint.startswith(BLUEPRINTS)


def _has_tokens() -> bool:
    return bool(current_store().settings.all_tokens)


def _add_refusals(described: Node, served: Mapping[tuple[str, str], str]) -> None:
    """Add to each operation what it shares with others: errors, parameters and headers.

    Operations of a model take a routing key, and some also the model and the version.
    """
    meanings = described.pop("x-statuses")
    shared = described["components"].setdefault("responses", {})
    for path, method, operation in _operations(described["paths"]):
        shape, answers = operation.pop("x-error"), operation["responses"]
        _, target = getattr(current_app.view_functions[served[path, method]], "place", (None, None))
        named = ("model_name", "model_version") if target is by_query else ()
        parameters = [*named, "routing_key"] if target else []
        operation["parameters"] = operation.get("parameters", []) + [
            {"$ref": f"#/components/parameters/{name}"} for name in parameters
        ]
        for answer in answers.values():
            answer.setdefault("headers", {}).update(_headers("X-Request-ID"))
            if target:
                answer["headers"].update(_headers("X-Model-Name", "X-Model-Version"))
        for status in sorted(_refusals(operation, method, served[path, method])):
            name = f"{shape['name']}{status}"
            shared[name] = {
                "description": meanings[str(status)],
                "headers": _headers("X-Request-ID", *HEADERS.get(status, ())),
                "content": shape["content"],
            }
            answers.setdefault(str(status), {"$ref": f"#/components/responses/{name}"})


def _headers(*names: str) -> Node:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _refusals(operation: Node, method: str, endpoint: str) -> set[int]:
    has_body = "requestBody" in operation
    refusals = {500, *operation.pop("x-refuses", ()), *(OF_BODIES if has_body else ())}
    if hasattr(current_app.view_functions[endpoint], "place"):
        refusals.add(404)
    if _is_management(endpoint) or (_has_tokens() and not is_probe(endpoint)):
        refusals |= {401, 403} if current_store().settings.all_management_tokens else {401}
    if current_store().settings.rate_limit and (has_body or method.upper() in COSTLY):
        refusals.add(429)
    return refusals
