"""The values of a model's description: from TOML, JSON or the text of a setting to one form.

Each function raises ValueError with what is accepted, to follow "it must be".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any, get_args

from predictor.images.preprocessing import Channels, Interpolation, Scale
from predictor.models.outputs import Activation
from predictor.setting_parsers import NAME_PATTERN

# Values of PREDICTOR_WEIGHTS and PREDICTOR_LABELS that are no paths.
WORDS = ("auto", "random", "imagenet")
RULES = ("squash", "pad", "none")
MAX_SIDE = 4096  # pixels of what a network takes
SIDES = "height and width, such as [160, 320] or '160x320'"  # in TOML, and in a setting or TOML


def _valid(accepted: str, is_valid: Callable[[Any], bool]) -> Callable[[Any], Any]:
    """Return a function that returns a valid value as it is."""

    def check(value: Any) -> Any:
        if not is_valid(value):
            raise ValueError(accepted)
        return value

    return check


def _one_of(known: Sequence[str]) -> Callable[[Any], Any]:
    return _valid(f"one of {', '.join(known)}", lambda value: value in known)


text = _valid("a text", lambda value: isinstance(value, str) and bool(value.strip()))
switch = _valid("true or false", lambda value: isinstance(value, bool))
table = _valid("a table of keyword arguments", lambda value: isinstance(value, dict))
# As ``load_labels`` takes them.
labels = _valid(
    "a path, or a list of names", lambda value: isinstance(value, str | list | dict) and bool(value)
)
channels, scale, activation = map(_one_of, map(get_args, (Channels, Scale, Activation)))
threshold = _valid(
    "a number from 0 to 1", lambda value: type(value) in (int, float) and 0 <= value <= 1
)
select = _valid(
    "a key or an index of what the model returns", lambda value: type(value) in (str, int)
)


def name(value: Any) -> str:
    """A name or version for URLs."""
    text = str(value) if type(value) in (str, int) else ""
    if not NAME_PATTERN.fullmatch(text):
        raise ValueError(
            "letters, digits, dots, hyphens and underscores, and begin with a letter or digit"
        )
    return text


def numbers(value: Any) -> tuple[float, ...]:
    """One number per channel; the text separates them by commas."""
    given = value.split(",") if isinstance(value, str) else value
    given = given if isinstance(given, list | tuple) else [given]
    try:
        found = () if bool in map(type, given) else tuple(map(float, given))
    except (TypeError, ValueError):
        found = ()
    if len(found) not in (1, 3, 4) or not all(map(isfinite, found)):
        raise ValueError("1, 3 or 4 numbers, one per channel")
    return found


def size(value: Any) -> tuple[int, int]:
    """Height and width in pixels: ``224``, ``[160, 320]``, or as text ``160x320``."""
    if not (sides := _sides(value)):
        raise ValueError(f"a side or {SIDES}, whole numbers from 1 to {MAX_SIDE}")
    return sides[0], sides[-1]


def resize(value: Any) -> int | tuple[int, int] | str:
    """Length of the shorter side in pixels, height and width as of ``size``, or a rule."""
    if value in RULES:
        return str(value)
    if not (sides := _sides(value)):
        accepted = f"the shorter side's length or {SIDES}, from 1 to {MAX_SIDE}"
        raise ValueError(f"{', '.join(RULES)}, or {accepted}")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _sides(value: Any) -> list[int]:
    """One or two sides in pixels; none if they are not valid."""
    given = value.lower().split("x") if isinstance(value, str) else value
    sides = [_side(one) for one in (given if isinstance(given, list | tuple) else [given])]
    return sides if len(sides) in (1, 2) and all(sides) else []


def _side(value: Any) -> int:
    if isinstance(value, str) and value.strip().isdigit() and value.isascii():
        value = int(value)
    return value if type(value) is int and 1 <= value <= MAX_SIDE else 0


def interpolation(value: Any) -> str:
    """The name of one of Pillow's interpolations, in lower case."""
    return str(_one_of([one.lower() for one in Interpolation.__members__])(str(value).lower()))
