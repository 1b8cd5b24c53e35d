"""Access control by a request's headers alone, and the security headers of responses."""

from __future__ import annotations

import hmac
import math
import re
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address, IPv6Network
from time import monotonic
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, current_app, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, NotFound, TooManyRequests, Unauthorized
from werkzeug.middleware.proxy_fix import ProxyFix

from predictor.environ import ADMITTED, MANAGEMENT
from predictor.settings import FRAME_ANCESTORS, Settings
from predictor.store.watch import Watch
from predictor.web.management import BLUEPRINTS, READING, is_managed
from predictor.web.request import is_probed

if TYPE_CHECKING:
    from limits import RateLimitItem

Tokens = Callable[[], Sequence[str]]  # those that are valid now

COSTLY = ("POST", "PUT")
SCHEMES = ("bearer", "basic")  # with basic, a browser asks its user for the token
# Defaults for every response. Pages replace the first, because they load scripts and styles.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",  # does not restrict CORS requests
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, OPTIONS, POST, PUT",
    "Access-Control-Allow-Private-Network": "true",  # some browsers ask: is this address private?
    "Access-Control-Max-Age": "600",
}
EXPOSED = (
    "Inference-Header-Content-Length, Retry-After, Server-Timing, X-Class-Id, X-Class-Index,"
    " X-Class-Name, X-Model-Name, X-Model-Version, X-Probability, X-Request-ID"
)
MAX_CLIENTS = 100_000  # that a rate limit counts one by one; they take 11 MB
FORWARDED = {"HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_PREFIX"}
MAX_FORWARDED = 2000  # characters, of which proxies write the last; to parse 57 kB takes 23 ms
MAX_AUTHORIZATION = 4096  # characters; to parse 62 kB of parameters takes 25 ms
WITH_PORT = re.compile(r"\A(?:\[(.*)\](?::\d*)?|([^:]*):\d*)\Z")
# Browsers read \ as /, and skip tabs: //a.example and /\a.example lead to another site.
PATH_AT_END = re.compile(r"(\A|,) */[^/\\\t,][^,]*\Z")
REALM = "the token is the password"  # some browsers show this text
SEND_TOKEN = (
    'send the header "Authorization: Bearer <token>". In a browser, enter any name, and the token'
    " as the password."
)
NO_TOKEN = f"A token is required: {SEND_TOKEN}"
WRONG_TOKEN = f"This token is not known. With a valid one, {SEND_TOKEN}"
FOR_MANAGEMENT = f"This token is only for the management API. With another one, {SEND_TOKEN}"
MANAGEMENT_TOKEN = (
    'A management token is required: send the header "Authorization: Bearer <token>".'
)


def register(app: Flask, settings: Settings, watch: Watch) -> None:
    """Add the guards that the settings ask for. They run before every view, in the order below.

    The watch follows the files of tokens. A server that does not start it follows from the first
    request on.
    """

    def tokens() -> tuple[str, ...]:
        return settings.all_tokens

    for file in settings.tokens_files:
        watch.add(file.paths, file.follow)
        app.before_request(watch.start)
    if settings.cors_origins:
        allow_origins(app, settings.cors_origins)
    if settings.rate_limit:  # before the token check, to limit the guessing of tokens, too
        app.before_request(once(rate_limiter(settings, tokens)))
    if settings.management_bind:
        app.before_request(once(separate_addresses))
    if settings.all_management_tokens:
        app.before_request(once(require_management_token(settings)))
    if tokens():  # a file of tokens never becomes empty
        app.before_request(once(require_token(settings)))
    app.after_request(add_headers)


def behind_proxies(wsgi_app: Any, hops: int) -> Any:
    """Return a WSGI app that trusts the forwarding headers of ``hops`` proxies.

    A proxy appends to X-Forwarded-For and replaces the other two headers. X-Forwarded-Host is
    ignored: the host is used only to redirect a path with doubled slashes.
    """
    if not hops:
        return wsgi_app
    fix = ProxyFix(wsgi_app, x_for=hops, x_proto=1, x_host=0, x_prefix=1)

    def shorten(environ: dict[str, Any], start_response: Any) -> Any:
        # An unclosed quote from the client would hide the address that the proxy appends.
        for name in FORWARDED & environ.keys():
            environ[name] = environ[name][-MAX_FORWARDED:].replace('"', "")
        if not PATH_AT_END.search(environ.get("HTTP_X_FORWARDED_PREFIX", "")):
            environ.pop("HTTP_X_FORWARDED_PREFIX", None)
        return fix(environ, start_response)

    return shorten


def once(guard: Callable[[], None]) -> Callable[[], None]:
    """Return a guard that skips requests that passed it before the server received their body."""
    return lambda: None if ADMITTED in request.environ else guard()


def add_headers(response: Response) -> Response:
    """Add the default headers that the view has not set itself."""
    given = {name.lower() for name, _ in response.headers}
    response.headers.extend([h for h in HEADERS.items() if h[0].lower() not in given])
    return response


def allow_frames(response: Response, policy: str) -> Response:
    """Set a page's Content-Security-Policy, with the frame ancestors of the app's config."""
    ancestors = current_app.config.get(FRAME_ANCESTORS, "'none'")
    response.headers["Content-Security-Policy"] = f"{policy}; frame-ancestors {ancestors}"
    return response


def require_token(settings: Settings) -> Callable[[], None]:
    """Return a guard that answers 401 to requests without a valid token. Probes need no token."""

    def check() -> None:
        if not (is_probed() or is_managed()) and matching_token(settings.all_tokens) is None:
            if is_bearer() and matching_token(settings.all_management_tokens):
                raise Forbidden(FOR_MANAGEMENT)
            challenges = [WWWAuthenticate(scheme, {"realm": REALM}) for scheme in SCHEMES]
            detail = WRONG_TOKEN if "Authorization" in request.headers else NO_TOKEN
            raise Unauthorized(detail, www_authenticate=challenges)

    return check


def separate_addresses() -> None:
    """Answer 404 to a request for a view that answers only at the other one of two addresses."""
    here, managing = request.environ.get(MANAGEMENT), request.blueprint in BLUEPRINTS
    if not (managing or request.endpoint in READING if here else not managing):
        raise NotFound


def require_management_token(settings: Settings) -> Callable[[], None]:
    """Return a guard that answers 401 to requests for the management API without its token.

    Basic authentication does not count: a browser would send it with requests of any web page.
    """

    def check() -> None:
        if not is_managed() or (is_bearer() and matching_token(settings.all_management_tokens)):
            return
        if matching_token(settings.all_tokens):
            raise Forbidden(f"This token is not one for management. {MANAGEMENT_TOKEN}")
        challenge = WWWAuthenticate("bearer", {"realm": "management"})
        raise Unauthorized(MANAGEMENT_TOKEN, www_authenticate=challenge)

    return check


def is_bearer() -> bool:
    """Return whether the request has a token that no browser sends by itself."""
    return request.headers.get("Authorization", "").lower().startswith("bearer ")


def matching_token(tokens: Sequence[str]) -> str | None:
    """Return the request's token; None if the request has no valid token.

    All tokens are compared, each in constant time.
    """
    header = request.headers.get("Authorization", "")
    if len(header) > MAX_AUTHORIZATION or header.partition(" ")[0].lower() not in SCHEMES:
        return None
    try:
        given = request.authorization
    except ValueError:  # the header is not text
        return None
    if given is None:
        return None
    text = given.password if given.type == "basic" else given.token
    sent = (text or "").encode()
    matches = [token for token in tokens if hmac.compare_digest(sent, token.encode())]
    return matches[0] if matches else None


def rate_limiter(settings: Settings, tokens: Tokens) -> Callable[[], None]:
    """Return a guard that answers 429 above the rates. Each process counts its own requests."""
    windows = [Window(rate) for rate in settings.rate_limit]

    def check() -> None:
        # A GET request with a body can contain a photo, too.
        has_body = bool(request.content_length) or "Transfer-Encoding" in request.headers
        valid = settings.all_management_tokens if is_managed() else tokens()
        token = matching_token(valid)
        guesses = bool(valid) and token is None and "Authorization" in request.headers
        if request.method not in COSTLY and not has_body and not guesses:
            return
        client = network(request.remote_addr or "") if token is None else f"token {token}"
        for window in windows:
            if not window.admits(client):
                seconds = max(1, math.ceil(window.end - monotonic()))
                detail = f"Rate limit exceeded ({window.rate}). Retry in {seconds:,} s."
                raise TooManyRequests(detail, retry_after=seconds)

    return check


class Window:
    """Counts the requests of each client since a common beginning.

    ``limits`` has such a counter, too. It walks through all clients at almost every request: with
    500,000 of them, photos took five times as long.
    """

    def __init__(self, rate: RateLimitItem) -> None:
        """Begin with the first request."""
        self.rate, self.end = rate, 0.0
        self._counts: dict[str, int] = {}

    def admits(self, client: str) -> bool:
        """Count a request, and return whether it is within the rate."""
        if (now := monotonic()) >= self.end:
            self._counts, self.end = {}, now + self.rate.get_expiry()
        if len(self._counts) >= MAX_CLIENTS and client not in self._counts:
            client = "all others"
        self._counts[client] = self._counts.get(client, 0) + 1
        return self._counts[client] <= self.rate.amount


def network(address: str) -> str:
    """Return the client's address without a port; for IPv6 its /64, which one client can use whole.

    Some proxies forward ``192.0.2.1:50000`` or ``[2001:db8::1]:50000``.
    """
    address = WITH_PORT.sub(r"\1\2", address)
    try:
        ip = IPv6Address(address)
    except ValueError:
        return address
    return str(ip.ipv4_mapped or IPv6Network((int(ip), 64), strict=False))


def allow_origins(app: Flask, origins: Sequence[str]) -> None:
    """Let pages of these origins call the app (CORS): with a token, never with cookies."""

    def is_allowed() -> bool:
        return "*" in origins or request.headers.get("Origin") in origins

    def answer_preflight() -> Response | None:
        """Answer a preflight, which never has the token of the request that follows it."""
        if request.method != "OPTIONS" or not is_allowed():
            return None
        if "Access-Control-Request-Method" not in request.headers:
            return None
        # All headers are allowed, because none has an effect on what else the page may do here.
        # "*" would not include Authorization.
        asked = request.headers.get("Access-Control-Request-Headers", "")
        return Response(status=204, headers={**PREFLIGHT, "Access-Control-Allow-Headers": asked})

    def add_origin(response: Response) -> Response:
        response.vary.add("Origin")
        if is_allowed() and "Origin" in request.headers:
            response.access_control_allow_origin = request.headers["Origin"]
            response.headers["Access-Control-Expose-Headers"] = EXPOSED
            response.headers["Timing-Allow-Origin"] = request.headers["Origin"]
        return response

    app.before_request(answer_preflight)
    app.after_request(add_origin)
