"""``GET /openapi.json`` and ``GET /docs``: what is answered here, described for the app that runs.

The descriptions lie beside the modules that serve them, a file for each protocol. An operation
says there what it takes and answers; here it is left out where it is not served, the app's own
limits and names are filled in, and the refusals are added that an operation shares with others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from flask import Blueprint, Response, current_app, jsonify, make_response, render_template, request

import predictor
from predictor.errors import NotReady
from predictor.web.current import current_classifier
from predictor.web.page.views import ANCESTORS, TOP_K
from predictor.web.probes import is_probe
from predictor.web.protocols.open_inference import TENSOR
from predictor.web.security import COSTLY

blueprint = Blueprint(
    "openapi",
    __name__,
    static_folder=str(files("flask_swagger_ui") / "dist"),
    static_url_path="/docs/swagger-ui",
)

WEB = Path(__file__).parent.parent
FIRST = ("common", "predict")  # of its files; the others follow by name
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C it takes an eighth of the time
METHODS = ("get", "put", "post", "delete", "options", "patch", "trace")  # that a path item has
# Swagger UI has its icons as data: in its style sheet, and shows a picture that was answered from
# the browser's memory.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
    " connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors {ancestors}"
)
# What comes with a refusal.
HEADERS = {401: ("WWW-Authenticate",), **dict.fromkeys((408, 429, 503), ("Retry-After",))}
# With what a body may be answered before any view sees it.
OF_BODIES = {408, 413, 503}

Node = dict[str, Any]  # of the document
UNKNOWN = object()  # a fact that the app has not got yet, or has not got at all


@blueprint.get("/openapi.json")
def show() -> Response:
    """The document."""
    return jsonify(document())


@blueprint.get("/docs", strict_slashes=False)
def docs() -> Response:
    """The document for people, with a form to try each operation: Swagger UI."""
    response = make_response(render_template("docs.html"))
    ancestors = current_app.config.get(ANCESTORS, "'none'")
    response.headers["Content-Security-Policy"] = POLICY.format(ancestors=ancestors)
    return response


def document() -> Node:
    """Describe the app that answers the request in work, as OpenAPI 3.1.

    Before the model is loaded, what belongs to it (its name, the number of its classes) is no
    part of the description.
    """
    described: Node = _fill(_descriptions(), _facts())
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
    """All descriptions as one, in which each operation has its name and its errors' shape."""
    merged: Node = {}
    for file in sorted(WEB.glob("*/*.yaml"), key=lambda f: (f.stem not in FIRST, f.stem)):
        part = yaml.load(file.read_text(encoding="utf-8"), LOADER)
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
    """One description may serve several methods and a path with a version; names are unique."""
    version = "_version" if "{version}" in path else ""
    first = next(key for key in paths[path] if key in METHODS)
    return name + version + ("" if method == first else f"_{method}")


def _facts() -> Mapping[str, Any]:
    """What the descriptions' ``${…}`` stand for."""
    classifier = current_classifier()
    settings = classifier.settings
    facts: dict[str, Any] = {
        "version": predictor.__version__,
        "max_bytes": settings.max_upload_bytes,
        "max_pixels": settings.max_pixels,
        "max_images": settings.max_queue,
        "max_explanations": settings.max_explanations,
        "request_timeout_s": f"{settings.request_timeout_s:g}",
        "rate_limit": " and ".join(map(str, settings.rate_limit)),
    }
    if request.script_root:  # a proxy's prefix; else the paths are what they are
        facts["servers"] = [{"url": request.script_root}]
    try:
        name, engine = classifier.name, classifier.engine()
    except NotReady:
        return facts
    classes = len(engine.labels)
    return facts | {
        "model": name,
        "models": [name],
        "models_and_tensors": [name, name + TENSOR],
        "classes": classes,
        "last_class": classes - 1,
        "top_k": min(TOP_K, classes),
        "side": engine.model.preprocessing.crop,
    }


def _fill(node: Any, facts: Mapping[str, Any]) -> Any:
    """A copy with the facts in their places, and without what depends on one that is unknown."""
    if isinstance(node, dict):
        filled = ((key, _fill(value, facts)) for key, value in node.items())
        return {key: value for key, value in filled if value is not UNKNOWN}
    if isinstance(node, list):
        return [value for item in node if (value := _fill(item, facts)) is not UNKNOWN]
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
    """The endpoint of each path and method, without those that Flask adds to every rule."""
    return {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower()): rule.endpoint
        for rule in current_app.url_map.iter_rules()
        for method in rule.methods or ()
        if method != "HEAD"
        and not (method == "OPTIONS" and getattr(rule, "provide_automatic_options", False))
    }


def _secure(described: Node, served: Mapping[tuple[str, str], str]) -> None:
    """Say by which schemes a token is sent, where one is wanted, and that the probes are open."""
    schemes = described["components"].pop("securitySchemes")
    if not _has_tokens():
        return
    described["components"]["securitySchemes"] = schemes
    described["security"] = [{name: []} for name in schemes]
    for path, method, operation in _operations(described["paths"]):
        if is_probe(served[path, method]):
            operation["security"] = []


def _has_tokens() -> bool:
    settings = current_classifier().settings
    return bool(settings.tokens + settings.tokens_file)


def _add_refusals(described: Node, served: Mapping[tuple[str, str], str]) -> None:
    """Add to each operation what it may be refused with, and to every answer its id."""
    meanings = described.pop("x-statuses")
    shared = described["components"].setdefault("responses", {})
    for path, method, operation in _operations(described["paths"]):
        shape, answers = operation.pop("x-error"), operation["responses"]
        for answer in answers.values():
            answer.setdefault("headers", {}).update(_headers("X-Request-ID"))
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
    if _has_tokens() and not is_probe(endpoint):
        refusals.add(401)
    if current_classifier().settings.rate_limit and (has_body or method.upper() in COSTLY):
        refusals.add(429)
    return refusals
