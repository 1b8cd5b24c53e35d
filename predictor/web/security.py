"""Who is let in, decided from the headers alone; and what every answer carries."""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address, IPv6Network
from time import time
from typing import TYPE_CHECKING

from flask import Flask, Response, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import TooManyRequests, Unauthorized
from werkzeug.middleware.proxy_fix import ProxyFix

from predictor.settings import Settings
from predictor.web.probes import is_probed

if TYPE_CHECKING:
    from limits import RateLimitItem

COSTLY = ("POST", "PUT")
SCHEMES = ("bearer", "basic")  # by the second a browser asks its user, also without JavaScript
# What is no page has nothing to load and belongs into nobody's frame.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",  # what CORS allows, it allows all the same
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT",
    "Access-Control-Allow-Headers": (
        "Authorization, Content-Encoding, Content-Type, Inference-Header-Content-Length,"
        " X-Request-ID"
    ),
    "Access-Control-Max-Age": "600",
}
EXPOSED = "Inference-Header-Content-Length, Retry-After, X-Request-ID"
REALM = "the token is the password"  # some browsers show it
WANTED = (
    'A token is wanted: send the header "Authorization: Bearer <token>". In a browser, give any'
    " name, and the token as the password."
)


def register(app: Flask, settings: Settings) -> None:
    """Guard the app as the settings ask; each guard runs before any view, in this order."""
    if hops := settings.trusted_proxies:
        # A proxy adds its client to the list of X-Forwarded-For, and replaces the other two. Not
        # the host: only a redirect from doubled slashes would show it, to whoever sent both.
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=hops, x_proto=1, x_host=0, x_prefix=1
        )
    tokens = [token.encode() for token in settings.tokens + settings.tokens_file]
    if settings.cors_origins:
        share_with(app, settings.cors_origins)
    if settings.rate_limit:  # before the tokens, so that guessing them is limited too
        app.before_request(rate_limiter(settings.rate_limit, tokens))
    if tokens:
        app.before_request(doorkeeper(tokens))
    app.after_request(add_headers)


def add_headers(response: Response) -> Response:
    """Give every answer the headers that its view has not chosen itself."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def doorkeeper(tokens: Sequence[bytes]) -> Callable[[], None]:
    """A guard that refuses who brings none of the tokens; the probes are open."""

    def check() -> None:
        if not is_probed() and holder(tokens) is None:
            challenges = [WWWAuthenticate(scheme, {"realm": REALM}) for scheme in SCHEMES]
            raise Unauthorized(WANTED, www_authenticate=challenges)

    return check


def holder(tokens: Sequence[bytes]) -> int | None:
    """Which of the tokens the request brings; all are compared, each in constant time."""
    try:
        given = request.authorization
    except ValueError:  # of bytes that are no text
        given = None
    if given is None:
        return None
    text = given.password if given.type == "basic" else given.token
    brought = (text or "").encode() if given.type in SCHEMES else b""
    matches = [hmac.compare_digest(brought, token) for token in tokens]
    return matches.index(True) if True in matches else None


def rate_limiter(rates: Sequence[RateLimitItem], tokens: Sequence[bytes]) -> Callable[[], None]:
    """A guard that refuses a client's requests above its rates; each process counts its own."""
    from limits.storage import MemoryStorage  # here: only who sets a rate pays for the import
    from limits.strategies import FixedWindowRateLimiter

    limiter = FixedWindowRateLimiter(MemoryStorage())

    def check() -> None:
        if request.method not in COSTLY and not _has_body():
            return
        number = holder(tokens)
        client = network(request.remote_addr or "") if number is None else f"token {number}"
        for rate in rates:
            if not limiter.hit(rate, client):
                end = limiter.get_window_stats(rate, client).reset_time  # by the wall's clock
                seconds = max(1, math.ceil(end - time()))
                words = f"More requests than {rate}; come again in {seconds:,} s."
                raise TooManyRequests(words, retry_after=seconds)

    return check


def _has_body() -> bool:
    """A photo may come with GET, too."""
    return bool(request.content_length) or "Transfer-Encoding" in request.headers


def network(address: str) -> str:
    """The client's address, and of IPv6 the /64 around it: who has one there has them all."""
    try:
        ip = IPv6Address(address)
    except ValueError:
        return address
    return str(ip.ipv4_mapped or IPv6Network((int(ip), 64), strict=False))


def share_with(app: Flask, origins: Sequence[str]) -> None:
    """Let pages of these origins ask (CORS), with a token but never with a browser's own login."""

    def is_allowed() -> bool:
        return "*" in origins or request.headers.get("Origin") in origins

    def answer_preflight() -> Response | None:
        """It carries no token, whatever the request that follows will."""
        if request.method != "OPTIONS" or not is_allowed():
            return None
        if "Access-Control-Request-Method" not in request.headers:
            return None
        return Response(status=204, headers=PREFLIGHT)

    def add_origin(response: Response) -> Response:
        response.vary.add("Origin")
        if is_allowed() and "Origin" in request.headers:
            response.access_control_allow_origin = request.headers["Origin"]
            response.headers["Access-Control-Expose-Headers"] = EXPOSED
        return response

    app.before_request(answer_preflight)
    app.after_request(add_origin)
