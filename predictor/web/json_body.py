"""Parse a JSON body within limits of memory, and of time in which no other thread runs."""

import json
from math import inf
from typing import Any

from predictor.errors import BadRequest, TooLarge
from predictor.web.forms import STEP

# Parsed, a string, list or object takes up to 50 times its size. The most images that the settings
# allow, each in an object with all its members, have half as many signs.
MAX_SIGNS, SIGNS = 200_000, b'"[{,'
# For more than these, as many bytes must be sent. 200,000 empty lists have 0.8 kB as gzip, and are
# parsed for 30 to 80 ms, in which no other thread runs: 60 clients made /healthz wait for 1.5 s.
FREE_SIGNS = 20_000
# Whole numbers of two digits that are parsed while all other threads wait, which takes 30 ms.
TURN = 200_000
# Of the base64 of a photo, some encoders escape each slash, or a line end after 76 characters.
MAX_ESCAPES = 1_000_000  # all other threads wait for a string to be parsed: these take 25 ms
MAX_DIGITS = 40  # of a number: FP32 has 39. Twice as many take four times as long to parse


def parse_json(body: bytes, is_tensor: bool = False, sent: float = inf) -> Any:
    """Parse a body as JSON, whatever its Content-Type.

    If ``is_tensor``, any count of numbers is accepted. ``sent``: bytes of a compressed body.

    Raises:
        BadRequest: the body is not JSON, or has NaN, Infinity or a number that is too long.
        TooLarge: the JSON has so many values that it would need much memory, or much time for so
            few bytes.
    """
    numbers, signs = body.count(b","), b'"[{' if is_tensor else SIGNS
    if numbers > TURN:
        signs += b"lr"  # null, false and true are parsed while all other threads wait
    if count(body, signs) > min(MAX_SIGNS, FREE_SIGNS + sent) or count(body, b"\\") > MAX_ESCAPES:
        raise TooLarge(
            "The JSON has too many values. Send images as base64, and tensors as binary data."
        )
    # Calls of Python code let other threads run, but take five times as long. A body with at most
    # 6 bytes for each number, such as a UINT8 tensor, has no room for many long whole numbers. One
    # fraction of 774 digits takes 60 µs: 8 clients with 1,300 of them, in 5 kB of gzip, made
    # /healthz wait for 0.5 s.
    parse_int = _whole_number if numbers > TURN or len(body) > 6 * numbers else None
    try:
        # json would decode surrogates one by one, while all other threads wait.
        text = body.decode("utf-8-sig")
        return json.loads(
            text, parse_float=_fraction, parse_int=parse_int, parse_constant=_whole_number
        )
    except json.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error}.") from error
    except (ValueError, RecursionError) as error:  # Python's message would not help a client
        raise BadRequest(
            "The body is not JSON in UTF-8, is nested too deeply, or has NaN, Infinity or a number"
            f" that is too long. Send finite numbers of at most {MAX_DIGITS} digits."
        ) from error


def count(body: bytes, signs: bytes) -> int:
    """Return how many of the signs are in the body, counted in steps."""
    steps = range(0, len(body), STEP)
    return sum(body.count(sign, step, step + STEP) for sign in signs for step in steps)


def _whole_number(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError
    return int(text)  # raises ValueError for NaN and Infinity, which json would accept


def _fraction(text: str) -> float:
    if len(text) > MAX_DIGITS:
        raise ValueError
    return float(text)
