"""What is said about a model: key → value, and who says it.

``model.toml``, the settings and the model's own files have the same keys. The operator says
something in the settings and in ``model.toml``; the model's own files only fill in the rest.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from predictor.errors import ModelError
from predictor.images.preprocessing import Interpolation, Preprocessing
from predictor.models import values
from predictor.settings import PREFIX, Settings

FILE = "model.toml"
# Key → a function that returns the value in one form, or raises ValueError with what is accepted.
# It takes a value of TOML or JSON, or the text of a setting.
KEYS: dict[str, Callable[[Any], Any]] = {
    "name": values.name,
    "version": values.name,
    "source": values.text,
    "weights": values.text,
    "weights_key": values.text,
    "labels": values.labels,
    "trust": values.switch,
    "batchable": values.switch,
    "arguments": values.table,
    "input.size": values.size,
    "input.resize": values.resize,
    "input.interpolation": values.interpolation,
    "input.channels": values.channels,
    "input.scale": values.scale,
    "input.mean": values.numbers,
    "input.std": values.numbers,
    "output.activation": values.activation,
    "output.threshold": values.threshold,
    "output.select": values.select,
}
TABLES = ("input", "output")
# What a file may say about the model in it: not where a model is, nor whether to trust it.
CARRIED = re.compile(r"name|version|labels|(input|output)\..+")
# Settings for the simple case, by key. Their value "auto" says nothing.
SETTINGS = {
    "weights": "weights", "labels": "labels", "input.size": "input_size", "input.resize": "resize",
    "input.interpolation": "interpolation", "input.mean": "mean", "input.std": "std",
    "output.activation": "activation",
}  # fmt: skip
ADVISED = {"MODEL": "source", "WEIGHTS": "weights", "LABELS": "labels"}  # by messages
# Keys of [input] that a description must have, with the values of many networks.
NEEDED = {
    "size": 224, "resize": 256, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]
}  # fmt: skip


class Said(NamedTuple):
    """A value, and who says it: a setting's name, or a file and its key."""

    value: Any
    origin: str


Description = dict[str, Said]


def value_of(description: Description, key: str) -> Any:
    """Return the value of a key, or None if the description lacks it."""
    found = description.get(key)
    return None if found is None else found.value


def table(description: Description, name: str) -> dict[str, Any]:
    """Return the keys of a table with their values."""
    start = f"{name}."
    return {
        key.removeprefix(start): said.value
        for key, said in description.items()
        if key.startswith(start)
    }


def describe(content: Mapping[str, Any], origin: str) -> Description:
    """Check the keys and values of ``content``, nested as in ``model.toml``.

    Raises:
        ModelError: a key or a value is not valid. The message says what is accepted.
    """
    return {
        key: said(key, value, f"{origin}: {key}")
        for key, value in _flat(content, origin)
        if not (key in SETTINGS and value == "auto")
    }


def said(key: str, value: Any, origin: str) -> Said:
    """Check one value. ``origin`` is for messages.

    Raises:
        ModelError: the value is not valid.
    """
    try:
        return Said(KEYS[key](value), origin)
    except ValueError as error:
        raise ModelError(f"{origin} is {value!r}; it must be {error}.") from None


def _flat(content: Mapping[str, Any], origin: str) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        is_table = key in TABLES
        if is_table and not isinstance(value, Mapping):
            raise ModelError(f"{origin}: {key} is {value!r}; it must be a table of keys.")
        inner = {f"{key}.{name}": one for name, one in value.items()} if is_table else {key: value}
        for name, one in inner.items():
            if name not in KEYS:
                close = difflib.get_close_matches(name, KEYS, n=1)
                hint = f"Did you mean {close[0]}?" if close else f"The keys are {', '.join(KEYS)}."
                raise ModelError(f"{origin}: there is no key {name}. {hint}")
            yield name, one


def read(path: Path) -> Description:
    """Read a ``model.toml``. Paths in it are relative to its folder.

    Raises:
        ModelError: the file cannot be read, or it has an invalid key or value.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{path} cannot be read: {reason}.") from error
    found = describe(content, str(path))
    for key in ("weights", "labels"):
        if key in found and isinstance(text := found[key].value, str) and text not in values.WORDS:
            found[key] = found[key]._replace(value=str(path.parent / text))
    return found


def carried(text: str | bytes | None, origin: str) -> Description:
    """Return what a file says about the model in it, from the card's JSON.

    Raises:
        ModelError: the text is not JSON, or it has an invalid key or value.
    """
    try:
        content = json.loads(text or "{}")
        found = describe(content, f"{origin}, predictor")
    except (ValueError, AttributeError) as error:
        raise ModelError(
            f"{origin}: what it says of itself is not a JSON object: {error}"
        ) from None
    return {key: said for key, said in found.items() if CARRIED.fullmatch(key)}


def from_settings(settings: Settings) -> Description:
    """Return what the settings say about the model, except PREDICTOR_MODEL itself."""
    return {
        key: said(key, value, f"{PREFIX}{field.upper()}")
        for key, field in SETTINGS.items()
        if (value := getattr(settings, field)) != "auto"
    }


def as_keys(text: str) -> str:
    """Name the keys of ``model.toml`` in an error message instead of settings: a store has none."""
    for setting, key in ADVISED.items():
        name, new = f"{PREFIX}{setting}", f"{key} in {FILE}"
        text = text.replace(f"{name}=", f"{new} = ").replace(name, new)
    return text


def agree(one: Description, other: Description) -> Description:
    """Return what both say.

    Raises:
        ModelError: they say something different. Paths to the same place are the same.
    """
    for key in one.keys() & other.keys():
        if _absolute(key, one[key].value) != _absolute(key, other[key].value):
            (value, origin), (second, where) = one[key], other[key]
            raise ModelError(
                f"{origin} is {value!r}, but {where} is {second!r}. Remove one of the two."
            )
    return one | other


def _absolute(key: str, value: Any) -> Any:
    is_path = key in ("weights", "labels") and isinstance(value, str) and value not in values.WORDS
    return Path(value).expanduser().absolute() if is_path else value


def input_of(said: Description, own: Description, name: str) -> Preprocessing:
    """Return the preprocessing that a description says. ``own`` is what the operator says of it.

    Raises:
        ModelError: something is missing, or does not fit together.
    """
    given = table(said, "input")
    if "scale" in given:  # it may be all of the normalisation
        given = {"mean": (0.0,), "std": (1.0,)} | given
    if missing := [key for key in NEEDED if key not in given]:
        raise ModelError(
            f"The input of {name} is not described: {', '.join(missing)} missing. Say in {FILE}"
            " beside the model how its training prepared photos, for example:\n[input]\n"
            + "\n".join(f"{key} = {NEEDED[key]}" for key in missing)
        )
    if "input.size" in own and "input.resize" not in own:
        origin = own["input.size"].origin
        other = f"{PREFIX}RESIZE" if origin.startswith(PREFIX) else "input.resize"
        raise ModelError(
            f"{origin} needs {other}, too: the length of the shorter side before the centre is cut,"
            " squash, pad or none."
        )
    channels = "RGBA" if 4 in (len(given["mean"]), len(given["std"])) else "RGB"
    given = {"interpolation": "bilinear", "channels": channels, **given}
    for key in ("mean", "std"):  # one number is for all channels
        if len(given[key]) == 1:
            given[key] *= len(given["channels"])
    try:
        given["interpolation"] = Interpolation.__members__[given["interpolation"].upper()]
        return Preprocessing(**given)
    except ValueError as error:
        key, _, rest = str(error).partition(" ")
        origin = said[f"input.{key}"].origin if f"input.{key}" in said else f"{key} of {name}"
        raise ModelError(f"{origin} {rest}") from None
