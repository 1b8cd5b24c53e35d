"""What an operator may choose: one table, read from the environment once, at the start."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from predictor.errors import SettingsError
from predictor.setting_parsers import (
    parse_name,
    parse_origins,
    parse_rates,
    parse_tokens,
    read_tokens,
)

if TYPE_CHECKING:
    from limits import RateLimitItem

PREFIX = "PREDICTOR_"
FRAME_ANCESTORS = "FRAME_ANCESTORS"  # in the app's config: which pages may show the page in a frame
PILLOWS_LIMIT = 178_956_970  # pixels; Pillow itself refuses larger images
# Settings of earlier versions, and what to do instead.
REMOVED = {
    "PREDICTOR_HANG_TIMEOUT_S": "It is four times PREDICTOR_REQUEST_TIMEOUT_S, at least 120 s.",
    "PREDICTOR_INFERENCE_THREADS": "PREDICTOR_TORCH_THREADS sets the processors for the model.",
    "PREDICTOR_MAX_RECEIVE_BYTES": "It follows from PREDICTOR_MAX_UPLOAD_BYTES and _MAX_IN_FLIGHT.",
    "PREDICTOR_SHARED_WEIGHTS_FD": "The server shares the weights between its processes itself.",
}


def setting(
    default: Any,
    help: str,
    *,
    limits: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    parse: Callable[[str], Any] | None = None,
    secret: bool = False,
) -> Any:
    """Declare one row of the table.

    As a default, ``None`` is written ``auto`` and ``()`` is written ``none``. What is secret
    is in no ``repr``.
    """
    metadata = {"help": help, "limits": limits, "choices": choices, "parse": parse}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    """The table. A unit stands in the name; a field's type is its default's."""

    model: str = setting(
        "vgg16", "Any torchvision classification model by name, or `efficientnet_lite0`."
    )
    weights: str = setting(
        "auto",
        "Path of a state_dict (`.pth`, `.pt`, `.safetensors`); `auto`: the published weights,"
        " from torch's cache or downloaded; `random`: no training at all, for benchmarks.",
    )
    fallback_model: str = setting(
        "none",
        "Model that stands in when the published weights cannot be had; `make serve` and"
        " `python app.py` set `efficientnet_lite0`.",
    )
    labels: str = setting(
        "imagenet",
        'Path of the class names: `.json` like `{"0": ["n01440764", "tench"], …}` or a list,'
        " or `.txt` with a name a line; `imagenet`: the 1000 classes shipped here.",
    )
    served_name: str = setting(
        "auto",
        "The model's name in the addresses of TorchServe's, the Open Inference and KServe's"
        " protocol; `auto`: its own.",
        parse=parse_name,
    )
    device: str = setting("auto", "`cpu`, `cuda`, `cuda:1`, …; `auto`: CUDA where there is a GPU.")
    precision: str = setting(
        "auto",
        "`float32`, `bfloat16` or `float16`; `auto`: bfloat16 where the hardware computes in it and"
        " the model is known to answer as in float32.",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    max_batch_size: int | None = setting(
        None,
        "Most images in one forward pass; `auto`: 2 on the CPU, 32 on a GPU.",
        limits=(1, 1024),
    )
    max_batch_delay_ms: float = setting(
        0.0,
        "Longest wait for a batch to fill, from its oldest image's arrival.",
        limits=(0, 60_000),
    )
    max_queue: int = setting(
        64, "Most images that wait for the model, and most in one request.", limits=(1, 10_000)
    )
    max_in_flight: int = setting(
        64, "Most requests in work at once; further ones are refused with 503.", limits=(1, 900)
    )
    max_explanations: int = setting(
        4,
        "Most requests for an explanation at once; further ones are refused with 503. `0`: nothing"
        " is explained.",
        limits=(0, 64),
    )
    request_timeout_s: float = setting(
        30.0, "Seconds after which a request is answered 504.", limits=(0.001, 86_400)
    )
    receive_timeout_s: float = setting(
        120.0, "Seconds a request may take to arrive; 408 after.", limits=(0.001, 86_400)
    )
    max_upload_bytes: int = setting(
        20 * 1024 * 1024, "Most bytes in a request's body; 413 above.", limits=(1, 2**31)
    )
    max_pixels: int = setting(
        50_000_000, "Most pixels in an image, by its header; 413 above.", limits=(1, PILLOWS_LIMIT)
    )
    exact_decode: bool = setting(
        False,
        "`true`: decode every pixel of a large JPEG; `false`: decode it at a half, a quarter or an"
        " eighth of its size, where that leaves twice as many as the model sees.",
    )
    torch_threads: int | None = setting(
        None, "Processors for the model; `auto`: as many as we may use.", limits=(1, 1024)
    )
    tokens: tuple[str, ...] = setting(
        (),
        "Tokens, separated by commas; every request but the probes' must bring one of them."
        " `none`: everybody may ask.",
        parse=parse_tokens,
        secret=True,
    )
    tokens_file: tuple[str, ...] = setting(
        (),
        "Path of a file with further tokens, one a line, `#` before a comment; read at the start"
        " and on SIGHUP.",
        parse=read_tokens,
        secret=True,
    )
    rate_limit: tuple[RateLimitItem, ...] = setting(
        (),
        "Most requests of one client that are `POST`, `PUT` or have a body, like `60/minute`"
        " or `10/second;1000/hour`; 429 above. `none`: no limit.",
        parse=parse_rates,
    )
    cors_origins: tuple[str, ...] = setting(
        (),
        "Origins, separated by commas, whose pages may ask from a browser, like"
        " `https://example.org`; `*`: all. `none`: only our own page.",
        parse=parse_origins,
    )
    trusted_proxies: int = setting(
        0,
        "Proxies in front of this server, one behind the other, whose `X-Forwarded-For`, `-Proto`"
        " and `-Prefix` are believed.",
        limits=(0, 16),
    )
    log_format: str = setting(
        "auto",
        "`text`: a line for people; `json`: an object a line; `auto`: text on a terminal, else"
        " JSON.",
        choices=("auto", "text", "json"),
    )

    # Not in the table: the server's master hands the memory file for weights to its workers.
    shared_weights_fd: int | None = None

    @property
    def all_tokens(self) -> tuple[str, ...]:
        """All valid tokens; empty if none is required."""
        return self.tokens + self.tokens_file

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the table from ``PREDICTOR_…`` variables; an empty one counts as not set.

        Raises:
            SettingsError: for a value that does not fit, quoted, and for a name that is
                not in the table: a typo must not be silent.
        """
        environ = os.environ if environ is None else environ
        table = {PREFIX + row.name.upper(): row for row in rows()}
        ours = (name for name in environ if name.upper().startswith(PREFIX))
        given = {name: environ[name].strip() for name in ours}
        for name in sorted(given.keys() & REMOVED.keys()):
            raise SettingsError(f"{name} was removed. {REMOVED[name]} Unset it.")
        for name in sorted(given.keys() - table.keys()):
            raise SettingsError(f"There is no setting {name}.{_suggestion(name, table)}")
        values = {name: _parse(name, text, table[name]) for name, text in given.items() if text}
        return cls(**{table[name].name: value for name, value in values.items()})


_handed_on: Settings | None = None


def hand_on(settings: Settings) -> None:
    """Make :func:`current_settings` return these settings, in this process and its forks."""
    global _handed_on
    _handed_on = settings


def current_settings() -> Settings:
    """Return the settings that the server handed on; else read the environment.

    A worker of gunicorn gets the settings that the master has read, so that all workers have the
    same ones, and a tokens file that breaks later stops nothing.
    """
    return _handed_on or Settings.from_env()


def rows() -> list[Field[Any]]:
    """Return the rows of the table."""
    return [row for row in fields(Settings) if row.metadata]


def _suggestion(name: str, table: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name.upper(), table, n=1, cutoff=0.75)
    return f" Did you mean {close[0]}?" if close else f" There are: {', '.join(table)}."


def _parse(name: str, text: str, row: Field[Any]) -> Any:
    default: Any = row.default
    if default is None and text == "auto":
        return None
    if default == () and text == "none":
        return ()
    if isinstance(default, bool):
        return _parse_switch(name, text)
    if row.metadata["parse"] is not None:
        return _parse_own(name, text, row)
    kind = int if default is None else type(default)
    choices, limits = row.metadata["choices"], row.metadata["limits"]
    try:
        value = kind(text)
        if kind is not str and (not text.isascii() or "_" in text):
            raise ValueError(text)  # int() reads any script's digits, and 1_0 as 10
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise SettingsError(f"{name}={text!r} is not {wanted}.") from None
    if choices and value not in choices:
        raise SettingsError(f"{name}={text!r} is none of {', '.join(choices)}.")
    if limits is not None and not limits[0] <= value <= limits[1]:
        raise SettingsError(f"{name}={text!r} is not between {limits[0]:,} and {limits[1]:,}.")
    return value


def _parse_own(name: str, text: str, row: Field[Any]) -> Any:
    try:
        return row.metadata["parse"](text)
    except ValueError as error:
        # Of a list of tokens nothing is quoted; the path of their file is what one has to see.
        shown = name if row.name == "tokens" else f"{name}={text!r}"
        raise SettingsError(f"{shown}: {error}") from None


def _parse_switch(name: str, text: str) -> bool:
    switch = {"1": True, "true": True, "0": False, "false": False}.get(text.lower())
    if switch is None:
        raise SettingsError(f"{name}={text!r} is neither true nor false.")
    return switch
