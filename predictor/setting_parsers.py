"""Parsers of the settings for tokens, rates, origins and the model's name.

Each function takes the text of a setting, or a file's path. It raises ValueError with a message
for the operator. No message contains a token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from limits import RateLimitItem

TOKEN_PATTERN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750's b64token
MIN_TOKEN_LENGTH = 16
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# A scheme, which apps and browser extensions have of their own, and a host. Pages of Android's
# WebView send "file://", and pages that have no origin send "null".
HOST = r"([a-z0-9._-]+|\[[0-9a-f:.]+\])"
ORIGIN_PATTERN = re.compile(
    rf"[a-z][a-z0-9+.-]*://{HOST}(:[0-9]{{1,5}})?"
    r"|[a-z-]+-extension://[A-Za-z0-9-]+|file://|null|\*"  # Safari's are in upper case
)
ANCESTOR_PATTERN = re.compile(  # a source of CSP's frame-ancestors
    rf"[a-z][a-z0-9+.-]*:(//(\*|(\*\.)?{HOST})(:([0-9]{{1,5}}|\*))?)?|'self'|\*"
)


def parse_name(text: str) -> str:
    """Return the text if it is a valid model name, which can stand in a URL."""
    if not NAME_PATTERN.fullmatch(text):
        raise ValueError(
            "a name may have up to 128 letters, digits, dots, hyphens and underscores, and must"
            " begin with a letter or digit."
        )
    return text


def parse_tokens(text: str) -> tuple[str, ...]:
    """Split the text at commas, and return the tokens."""
    tokens = [(f"token {n}", token.strip()) for n, token in enumerate(text.split(","), 1)]
    return _checked(tokens)


def read_tokens(path: Path) -> tuple[str, ...]:
    """Read one token from each line of a file. Empty lines and ``#`` comments are skipped."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise ValueError(f"the file cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise ValueError("the file is not UTF-8 text.") from error
    numbered = [(f"the token on line {n}", line.strip()) for n, line in enumerate(lines, 1)]
    return _checked((where, line) for where, line in numbered if line and line[0] != "#")


def _checked(tokens: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    checked = []
    for where, token in tokens:
        if len(token) < MIN_TOKEN_LENGTH:
            raise ValueError(
                f"{where} has fewer than {MIN_TOKEN_LENGTH} characters;"
                " `openssl rand -hex 32` makes a good one."
            )
        if not TOKEN_PATTERN.fullmatch(token):
            raise ValueError(
                f"{where} may contain only letters, digits and - . _ ~ + / (and = at its end)."
            )
        checked.append(token)
    if not checked:
        raise ValueError("the file has no token.")
    return tuple(checked)


def parse_bind(text: str) -> tuple[str, int]:
    """Return the IP address and the port of a text like ``127.0.0.1:8081`` or ``[::1]:8081``."""
    host, _, port = text.rpartition(":")
    with suppress(ValueError):
        if re.fullmatch("[0-9]{1,5}", port) and 1 <= int(port) <= 65535:
            return str(ip_address(host.removeprefix("[").removesuffix("]"))), int(port)
    raise ValueError("write an IP address and a port, like 127.0.0.1:8081 or [::1]:8081.")


def parse_origins(text: str) -> tuple[str, ...]:
    """Split the text at commas, and return the origins, written as browsers send them, or ``*``."""
    origins = tuple(origin.strip() for origin in text.split(","))
    for origin in origins:
        if not ORIGIN_PATTERN.fullmatch(origin):
            raise ValueError(
                f"{origin!r} is not an origin. Write it like https://example.org or"
                " capacitor://localhost, in lower case and without a path."
            )
    return origins


def parse_ancestors(text: str) -> tuple[str, ...]:
    """Split the text at blanks and commas, and return the sources for CSP's frame-ancestors."""
    sources = tuple("'self'" if s == "self" else s for s in re.split(r"[\s,]+", text))
    for source in sources:
        if not ANCESTOR_PATTERN.fullmatch(source):
            raise ValueError(
                f"{source!r} is not a site. Write it like https://example.org or"
                " https://*.example.org, in lower case and without a path."
            )
    return sources


def parse_rates(text: str) -> tuple[RateLimitItem, ...]:
    """Split a text like ``10/second;1000/hour`` at semicolons, and return the rates."""
    from limits import parse_many  # here: not needed without a rate limit

    try:
        rates = tuple(parse_many(text))
    except ValueError:
        raise ValueError("a rate is written like 60/minute or 10/second;1000/hour.") from None
    if not all(rate.amount for rate in rates):
        raise ValueError("a rate of 0 would refuse every request; it must be at least 1.")
    return rates
