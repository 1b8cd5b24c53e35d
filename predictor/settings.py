"""The settings: one table, read from environment variables."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predictor import setting_parsers as parsers
from predictor import setting_rules as rules
from predictor.errors import SettingsError
from predictor.setting_rules import DEVELOPMENT as DEVELOPMENT
from predictor.setting_rules import PREFIX as PREFIX
from predictor.tokens import TokensFile

if TYPE_CHECKING:
    from limits import RateLimitItem

FRAME_ANCESTORS = "FRAME_ANCESTORS"  # in the app's config: sites that may show the page in a frame
GROUPS = ("model", "speed", "limits", "access", "logs")
WITHOUT_PREFIX = ("HOST", "PORT", "WEB_CONCURRENCY")  # what hosting platforms set
# Kubernetes sets these variables in every container for each Service of the namespace. The names
# of some Services begin with "predictor".
SERVICE_VARIABLE = re.compile(
    rf"{PREFIX}([A-Z0-9_]+_)?("
    r"SERVICE_HOST=([0-9a-f.:]+)?"
    r"|SERVICE_PORT(_[A-Z0-9_]+)?=\d*"
    r"|PORT(_\d+_(TCP|UDP|SCTP))?=((tcp|udp|sctp)://.+)?"
    r"|PORT_\d+_(TCP|UDP|SCTP)_(ADDR=[0-9a-f.:]*|PORT=\d*|PROTO=(tcp|udp|sctp)?))"
)
SWITCHES = {"1": True, "true": True, "0": False, "false": False}
PILLOWS_LIMIT = 178_956_970  # pixels; Pillow itself refuses larger images


def setting(
    group: str, default: Any, *, help: str, limits: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (), parse: Callable[[str], Any] | None = None, secret: bool = False,
) -> Any:  # fmt: skip
    """Declare one row of the table. A secret value does not appear in ``repr``.

    In the documentation, a default of ``None`` is shown as ``auto``, and a default of ``()`` as
    ``none``.
    """
    metadata = {"group": group, "help": help, "limits": limits, "choices": choices, "parse": parse}
    return field(default=default, repr=not secret, metadata=metadata)


_model, _speed, _limit, _access, _log = (partial(setting, group) for group in GROUPS)


@dataclass(frozen=True, slots=True)
class Settings:
    """The table of settings. A number's unit is in its name. A default shows its field's type."""

    # fmt: off
    model: str = _model("vgg16",
        help="The model: a name of torchvision (`resnet50`, or `resnet50@IMAGENET1K_V1` to choose"
        " the weights), `timm:NAME`, a function or class (`net.py:build`, `package.module:Net`), or"
        " the path of a file or folder. `--model`, `--weights` and `--labels` of a command replace"
        " these settings. See `docs/your-model.md`.")
    weights: str = _model("auto",
        help="Path of a checkpoint (`.pth`, `.pt`, `.safetensors`), see `docs/checkpoints.md`."
        " `auto`: the published weights, from torch's cache or downloaded. `random`: untrained, for"
        " benchmarks.")
    fallback_model: str = _model("none",
        help="Model to serve if the published weights cannot be downloaded. `make serve` and"
        " `python app.py` set `efficientnet_lite0`. It never replaces a model for which weights,"
        " labels or input are set.")
    labels: str = _model("auto",
        help="Path of the class names in the order of the outputs: JSON, or a text with one name"
        " per line, see `docs/checkpoints.md`. `imagenet`: the 1000 classes of ImageNet. `auto`:"
        " those of the model, or `class 0`, `class 1`, ….")
    input_size: str = _model("auto",
        help="Size of what the network takes, in pixels: `224`, or height and width `160x320`."
        " `PREDICTOR_RESIZE` must be set, too. `auto`, here and below: the model's own.")
    resize: str = _model("auto",
        help="`256`: resize the shorter side to this length, then cut out the centre. `256x256`:"
        " resize to this size, then cut out the centre. `squash`: resize to the input's size."
        " `pad`: fit into the input's size, on black. `none`: photos must have this size.")
    interpolation: str = _model("auto",
        help="How photos are resized: `bilinear`, `bicubic`, `nearest`, `lanczos`, `box`, ….")
    mean: str = _model("auto",
        help="Mean of each channel, such as `0.485,0.456,0.406`, or one for all channels; for"
        " pixels from 0 to 1. Another scale can be set in `model.toml`.")
    std: str = _model("auto", help="Standard deviation of each channel, like the mean.")
    activation: str = _model("auto",
        help="`softmax`: one class is right. `sigmoid`: several can be. `probabilities`: the model"
        " answers with probabilities. `auto`: what the outputs show: `softmax`, or"
        " `probabilities` if they sum to 1; `sigmoid` for a single output.")
    served_name: str = _model("auto", parse=parsers.parse_name,
        help="Model name in the URLs of the TorchServe, KServe and Open Inference protocols."
        " `auto`: the loaded model's own name.")
    store: str = _model("none",
        help="Folder of several models with versions, see `docs/store.md`. It replaces all other"
        " settings of this table. `none`: one model, which the other settings describe.")
    device: str = _speed("auto", help="`cpu`, `cuda`, `cuda:1`, …. `auto`: a GPU if there is one.")
    precision: str = _speed("auto", choices=("auto", "float32", "bfloat16", "float16", "int8"),
        help="`float32`, `bfloat16` or `float16`; `int8` accepts only an ONNX file that is"
        " quantised, see `docs/exports.md`. `auto`: bfloat16 if the hardware supports it"
        " and the model is known to answer as in float32, otherwise float32.")
    max_batch_size: int | None = _speed(None, limits=(1, 1024),
        help="Maximum number of images in one forward pass. `auto`: 2 on the CPU, 4 for an"
        " ONNX file of 50 million parameters or more, 32 on a GPU.")
    max_batch_delay_ms: float = _speed(0.0, limits=(0, 60_000),
        help="Maximum time to wait for a batch to fill, counted from the arrival of its first"
        " image.")
    exact_decode: bool = _speed(False,
        help="`true`: decode every pixel of a large JPEG. `false`: decode large JPEGs at 1/2, 1/4"
        " or 1/8 size, as long as the shorter side remains at least twice what the model needs.")
    torch_threads: int | None = _speed(None, limits=(1, 1024),
        help="Processors for the model. `auto`: all that CPU affinity and cgroup quota allow,"
        " divided among the processes.")
    max_in_flight: int = _limit(64, limits=(1, 900),
        help="Maximum number of requests in progress; further requests get 503. Half of them may"
        " have several images. Of several models, one gets three quarters of them at most.")
    max_queue: int = _limit(64, limits=(1, 10_000),
        help="Maximum number of images in one request, and of those that wait for the model before"
        " a request of one; a request of several may wait behind twice as many, less its own.")
    max_explanations: int = _limit(4, limits=(0, 64),
        help="Maximum number of explanations in progress or waiting; further ones get 503. `0`: no"
        " explanations.")
    request_timeout_s: float = _limit(30.0, limits=(0.001, 86_400),
        help="Seconds after which a request is answered with 504.")
    receive_timeout_s: float = _limit(120.0, limits=(0.001, 86_400),
        help="Seconds a request may take to arrive (slower requests get 408), and a client to read"
        " the response (then the connection is closed).")
    max_upload_bytes: int = _limit(20 * 1024 * 1024, limits=(1, 2**31),
        help="Maximum size of a request body; larger ones get 413, and the page sends a smaller"
        " copy. Photos of 200 megapixels need 64 MiB; 64 of them at once then take 2.9 GB.")
    max_pixels: int = _limit(50_000_000, limits=(1, PILLOWS_LIMIT),
        help="Maximum number of pixels to decode, read from the image's header; larger images get"
        " 413. A large baseline JPEG is decoded at a reduced size, and only that counts.")
    tokens: tuple[str, ...] = _access((), parse=parsers.parse_tokens, secret=True,
        help="Access tokens, separated by commas. Every request except the probes must send one."
        " `none`: no token is required.")
    tokens_file: TokensFile | tuple[str, ...] = _access((), parse=TokensFile, secret=True,  # noqa: RUF009
        help="Path of a file with more tokens, one per line; `#` starts a comment. Each"
        " process follows changes within 2 s; a file that is not valid changes nothing.")
    management_tokens: tuple[str, ...] = _access((), parse=parsers.parse_tokens, secret=True,
        help="Tokens of the management API, which changes what a store serves, see"
        " `docs/protocols.md`. `none`, and no file of them: the API is off.")
    management_tokens_file: TokensFile | tuple[str, ...] = _access((), parse=TokensFile,  # noqa: RUF009
        secret=True, help="Path of a file with more tokens of the management API.")
    management_bind: tuple[str, int] | tuple[()] = _access((), parse=parsers.parse_bind,
        help="IP address and port that the management API has for itself, like"
        " `127.0.0.1:8081`. `none`: it is at the same address as the rest.")
    rate_limit: tuple[RateLimitItem, ...] = _access((), parse=parsers.parse_rates,
        help="Maximum rate per client, like `60/minute` or `10/second;1000/hour`. Counts POST and"
        " PUT requests, and any request with a body; further ones get 429. `none`: no limit.")
    cors_origins: tuple[str, ...] = _access((), parse=parsers.parse_origins,
        help="Origins, separated by commas, whose web pages may use the API, like"
        " `https://example.org` or `capacitor://localhost`. `null`: pages without an origin, which"
        " any site can make. `*`: all. `none`: only the server's own page.")
    frame_ancestors: tuple[str, ...] = _access((), parse=parsers.parse_ancestors,
        help="Sites, separated by blanks or commas, that may show the page in a frame, like"
        " `https://huggingface.co`. `none`: no site.")
    trusted_proxies: int = _access(0, limits=(0, 16),
        help="Number of proxies in front of the server whose `X-Forwarded-For`, `-Proto` and"
        " `-Prefix` headers are trusted.")
    log_format: str = _log("auto", choices=("auto", "text", "json"),
        help="`text`: lines for people. `json`: one JSON object per line. `auto`: text on a"
        " terminal, otherwise JSON.")
    # fmt: on

    # Not in the table: the master passes its workers the descriptors of the memory files for
    # weights, and a folder that all processes share.
    shared_weights: tuple[int, ...] = ()
    shared_folder: Path | None = None
    cpus: int | None = None  # processors of this process; None: by affinity and quota

    @property
    def all_tokens(self) -> tuple[str, ...]:
        """All tokens that are valid now; empty if no token is required."""
        return (*self.tokens, *self.tokens_file)

    @property
    def all_management_tokens(self) -> tuple[str, ...]:
        """All tokens of the management API that are valid now; empty if it is off."""
        return (*self.management_tokens, *self.management_tokens_file)

    @property
    def tokens_files(self) -> list[TokensFile]:
        """The files of tokens to follow."""
        files = self.tokens_file, self.management_tokens_file
        return [file for file in files if isinstance(file, TokensFile)]

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the ``PREDICTOR_…`` environment variables. An empty variable counts as not set.

        Raises:
            SettingsError: a value is invalid, or a variable's name is not in the table.
        """
        environ = os.environ if environ is None else environ
        table = {PREFIX + row.name.upper(): row for row in rows()}
        given = {
            name: unquoted(text)
            for name, text in environ.items()
            if name.upper().startswith(PREFIX) and not SERVICE_VARIABLE.fullmatch(f"{name}={text}")
        }
        for name in sorted(given.keys() & rules.REMOVED.keys()):
            raise SettingsError(f"{name} was removed; unset it. {rules.REMOVED[name]}")
        for name in sorted(given.keys() - table.keys()):
            raise SettingsError(f"There is no setting {name}.{_suggestion(name, table)}")
        values = {name: _parse(name, text, table[name]) for name, text in given.items() if text}
        of_model = {name for name in values if table[name].metadata["group"] == "model"}
        rules.refuse_beside_store(values, of_model)
        rules.refuse_idle_management(values)
        return cls(**{table[name].name: value for name, value in values.items()})


def unquoted(text: str) -> str:
    """Return the value without blanks and quotes around it, which some readers of .env files keep.

    ``docker run --env-file`` keeps quotes, and a file written on Windows leaves a carriage return.
    """
    text = text.strip()
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" and text.count(text[0]) == 2
    return text[1:-1].strip() if quoted else text


_handed_on: Settings | None = None


def hand_on(settings: Settings) -> None:
    """Make :func:`current_settings` return these settings, in this process and its forks."""
    global _handed_on
    _handed_on = settings


def current_settings() -> Settings:
    """Return the settings given to :func:`hand_on`, or read them from the environment.

    A gunicorn worker gets the settings that the master read, with the tokens that the master has
    followed. All workers thus have the same settings, and can start even if the tokens file is
    damaged.
    """
    return _handed_on or Settings.from_env()


def rows() -> list[Field[Any]]:
    """Return the rows of the table."""
    return [row for row in fields(Settings) if row.metadata]


def _suggestion(name: str, table: Mapping[str, object]) -> str:
    if (bare := name.upper().removeprefix(PREFIX)) in WITHOUT_PREFIX:
        return f" Did you mean {bare}, which has no prefix?"
    known = [one.removeprefix(PREFIX) for one in table]  # the prefix makes all names alike
    close = [PREFIX + one for one in difflib.get_close_matches(bare, known, n=1, cutoff=0.7)]
    return f" Did you mean {close[0]}?" if close else f" The settings are {', '.join(table)}."


def _parse(name: str, text: str, row: Field[Any]) -> Any:
    default: Any = row.default
    if default is None and text == "auto":
        return None
    if default == () and text == "none":
        return ()
    if isinstance(default, bool):
        if (switch := SWITCHES.get(text.lower())) is None:
            raise SettingsError(f"{name}={text!r} is neither true nor false.")
        return switch
    if row.metadata["parse"] is not None:
        return _parse_own(name, text, row)
    kind = int if default is None else type(default)
    choices, limits = row.metadata["choices"], row.metadata["limits"]
    try:
        value = kind(text)
        if kind is not str and (not text.isascii() or "_" in text):
            raise ValueError(text)  # int() accepts digits of any script, and reads 1_0 as 10
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise SettingsError(f"{name}={text!r} is not {expected}.") from None
    if choices and value not in choices:
        raise SettingsError(f"{name}={text!r} is not one of {', '.join(choices)}.")
    if limits is not None and not limits[0] <= value <= limits[1]:
        raise SettingsError(f"{name}={text!r} is not between {limits[0]:,} and {limits[1]:,}.")
    return value


def _parse_own(name: str, text: str, row: Field[Any]) -> Any:
    try:
        return row.metadata["parse"](text)
    except ValueError as error:
        # Do not quote tokens in an error. The path of the tokens file may be quoted.
        shown = name if row.name.endswith("tokens") else f"{name}={text!r}"
        raise SettingsError(f"{shown}: {error}") from None
