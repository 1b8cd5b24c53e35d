"""The values of a model's description: from TOML, JSON or the text of a setting to one form.

Each function raises ValueError with what is accepted, to follow "it must be".
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, get_args

from predictor.images.preprocessing import MAX_SIDE, RULES, Channels, Interpolation, Scale
from predictor.models.outputs import Activation
from predictor.setting_parsers import parse_name

# Values of PREDICTOR_WEIGHTS and PREDICTOR_LABELS that are no paths.
WORDS = ("auto", "random", "imagenet")


def text(value: Any) -> str:
    """Any text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text")
    return value


def name(value: Any) -> str:
    """A name or version for URLs."""
    try:
        return parse_name(str(value) if type(value) in (str, int) else "")
    except ValueError:
        raise ValueError(
            "letters, digits, dots, hyphens and underscores, and begin with a letter or digit"
        ) from None


def switch(value: Any) -> bool:
    """Return true or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def table(value: Any) -> dict[str, Any]:
    """Keyword arguments."""
    if not isinstance(value, dict):
        raise ValueError("a table of keyword arguments")
    return value


def labels(value: Any) -> Any:
    """A path, or the labels themselves, as ``load_labels`` takes them."""
    if not isinstance(value, str | list | dict) or not value:
        raise ValueError("a path, or a list of names")
    return value


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
    given = value.lower().split("x") if isinstance(value, str) else value
    given = given if isinstance(given, list | tuple) else [given]
    sides = [_side(one) for one in given]
    if len(sides) not in (1, 2) or None in sides:
        raise ValueError(f"a side or [height, width], whole numbers from 1 to {MAX_SIDE}")
    return sides[0] or 0, sides[-1] or 0


def resize(value: Any) -> int | tuple[int, int] | str:
    """Length of the shorter side in pixels, height and width as of ``size``, or a rule."""
    if value in RULES:
        return str(value)
    given = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
    if (side := _side(given)) is not None:
        return side
    try:
        return size(value)
    except ValueError:
        sides = f"the shorter side's length or [height, width], from 1 to {MAX_SIDE}"
        raise ValueError(f"{', '.join(RULES)}, or {sides}") from None


def _side(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().isdigit() and value.isascii():
        value = int(value)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return value if is_whole and 1 <= value <= MAX_SIDE else None


def interpolation(value: Any) -> str:
    """The name of one of Pillow's interpolations, in lower case."""
    return _one_of(str(value).lower(), [one.lower() for one in Interpolation.__members__])


def channels(value: Any) -> str:
    """What the channels are."""
    return _one_of(value, get_args(Channels))


def scale(value: Any) -> str:
    """The range of a pixel's values before mean and std."""
    return _one_of(value, get_args(Scale))


def activation(value: Any) -> str:
    """How outputs become probabilities."""
    return _one_of(value, get_args(Activation))


def threshold(value: Any) -> float:
    """The least probability of a label, of several at once."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError("a number from 0 to 1")
    return float(value)


def select(value: Any) -> str | int:
    """A key of a dict, or an index of a tuple."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("a key or an index of what the model returns")
    return value


def _one_of(value: Any, known: Sequence[str]) -> str:
    if value not in known:
        raise ValueError(f"one of {', '.join(known)}")
    return str(value)
