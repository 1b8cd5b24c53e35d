"""Who may ask, how often and under which name: as operators write it.

Every function takes a setting's text and raises ValueError with a sentence for the operator;
none of these sentences holds a token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limits import RateLimitItem

TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # what RFC 6750 lets travel in a header
MIN_TOKEN_LENGTH = 16
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
ORIGIN = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


def parse_name(text: str) -> str:
    """A model's name, as it stands in addresses."""
    if not NAME.fullmatch(text):
        raise ValueError("a name has letters, digits, dots, hyphens and underscores.")
    return text


def parse_tokens(text: str) -> tuple[str, ...]:
    """Tokens separated by commas."""
    tokens = [(f"token {n}", token.strip()) for n, token in enumerate(text.split(","), 1)]
    return _checked(tokens)


def read_tokens(path: str) -> tuple[str, ...]:
    """Tokens of a file, one a line; empty lines and those that begin with ``#`` do not count."""
    try:
        lines = Path(path).expanduser().read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise ValueError(f"the file cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise ValueError("the file is no text.") from error
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
        if not TOKEN.fullmatch(token):
            raise ValueError(f"{where} has a blank or what is no letter, digit or -._~+/=.")
        checked.append(token)
    if not checked:
        raise ValueError("there is no token in it.")
    return tuple(checked)


def parse_origins(text: str) -> tuple[str, ...]:
    """Origins separated by commas, as browsers write them; or ``*``."""
    origins = tuple(origin.strip() for origin in text.split(","))
    for origin in origins:
        if origin != "*" and not ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{origin!r} is no origin; one is written like https://example.org or"
                " http://localhost:3000, in small letters and without a path."
            )
    return origins


def parse_rates(text: str) -> tuple[RateLimitItem, ...]:
    """Rates like ``60/minute``, separated by semicolons."""
    from limits import parse_many  # here: only who sets a rate pays for the import

    try:
        rates = tuple(parse_many(text))
    except ValueError:
        raise ValueError("a rate is written like 60/minute or 10/second;1000/hour.") from None
    if not all(rate.amount for rate in rates):
        raise ValueError("a rate of 0 would refuse everybody; at least 1 is wanted.")
    return rates
