"""The weights: where they are, how they get here, and whether they are the right ones."""

from __future__ import annotations

import hashlib
import re
import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
import torch
from filelock import FileLock
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

from predictor.errors import WeightsError, WeightsUnavailable
from predictor.models.zoo import ModelSpec, todays_name

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10, 60
# What people call the state_dict inside a training checkpoint.
CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model", "net")


def locate(spec: ModelSpec, source: str) -> Path:
    """Find the weights: the file named, else the published ones, downloaded if need be.

    Args:
        spec: the model; its published weights lie in a package or in torch's cache.
        source: a path, or ``auto``.

    Raises:
        WeightsError: there is no file at the path, or the download is not what was published.
        WeightsUnavailable: the published weights are not here and cannot be downloaded.
    """
    if source != "auto":
        path = Path(source).expanduser()
        if not path.is_file():
            raise WeightsError(f"PREDICTOR_WEIGHTS={source!r} names no file.")
        return path
    if spec.packaged is not None:
        return spec.packaged()
    assert spec.url is not None, f"{spec.name} has neither a package nor an address"
    path = Path(torch.hub.get_dir(), "checkpoints", spec.url.rpartition("/")[2])
    if not path.is_file():
        _download_or_advise(spec, spec.url, path)
    return path


def _download_or_advise(spec: ModelSpec, url: str, path: Path) -> None:
    try:
        download(url, path)
    except (requests.RequestException, OSError) as error:
        raise WeightsUnavailable(
            f"The weights of {spec.name} are not in {path} and cannot be downloaded from {url}"
            f" ({_reason(error)}). Put the file there, or name another place with"
            f" PREDICTOR_WEIGHTS=/path/to/{path.name}, or serve the small model that needs no"
            " download with PREDICTOR_MODEL=efficientnet_lite0."
        ) from error


def _reason(error: BaseException) -> str:
    """The innermost cause, without the library's wrapping: "Connection refused"."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def download(url: str, path: Path) -> None:
    """Download a file with a progress bar; it appears at ``path`` whole or not at all.

    Of several processes that want it one downloads and the others wait.

    The address's last part carries the beginning of the SHA-256, as torchvision's do
    (``vgg16-397923af.pth``); the file must match it.

    Raises:
        requests.RequestException: no route, no such file, or the connection was cut.
        OSError: no place to write to.
        WeightsError: other bytes than were published.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")  # what a killed download leaves, the next overwrites
    with FileLock(f"{path}.lock"):
        if path.is_file():
            return
        try:
            digest = _fetch(url, part)
            expected = _published_digest(url)
            if not digest.startswith(expected):
                raise WeightsError(
                    f"{url} answered other bytes than were published: SHA-256 {digest[:8]}…"
                    f" instead of {expected}…. A proxy or a captive portal may be in between."
                )
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _fetch(url: str, path: Path) -> str:
    """Stream the address into a file; its SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    timeout = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
    with requests.get(url, stream=True, timeout=timeout) as response:
        response.raise_for_status()
        bar = tqdm(
            desc=f"Downloading {url.rpartition('/')[2]}",
            total=int(response.headers.get("Content-Length", 0)) or None,
            unit="B",
            unit_scale=True,
            mininterval=0.1 if sys.stderr.isatty() else 10,  # a log wants a line now and then
        )
        with bar, path.open("wb") as file:
            for chunk in response.iter_content(chunk_size=1 << 20):
                digest.update(chunk)
                file.write(chunk)
                bar.update(len(chunk))
    return digest.hexdigest()


def _published_digest(url: str) -> str:
    match = re.search(r"-([0-9a-f]{8,})\.pth?$", url)
    if match is None:
        raise WeightsError(f"{url} does not carry the hash by which to check what it answers.")
    return match[1]


def read(path: Path) -> OrderedDict[str, Tensor]:
    """Read a state_dict, mapped into memory where the format allows: nothing in it is executed.

    A training checkpoint around it and the prefixes of wrappers are taken off,
    and what published files call by old names has today's.

    Raises:
        WeightsError: the file is no state_dict; the sentence says what it is.
    """
    try:
        content = _read_any(path)
    except Exception as error:
        # Unpicklers raise anything on foreign bytes, so the bytes are asked, not the error.
        raise WeightsError(f"{path} {_what_it_is(path, error)}") from error
    for key in CHECKPOINT_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(f"{path} holds no state_dict, but a {type(content).__name__}.")
    state: OrderedDict[str, Tensor] = OrderedDict()
    for name, tensor in content.items():
        if (today := todays_name(_bare(str(name)))) is not None:
            state[today] = tensor
    # Some networks (MNASNet) read from it which version of themselves wrote the file.
    metadata = getattr(content, "_metadata", {})
    state._metadata = {_bare(name): m for name, m in metadata.items()}  # type: ignore[attr-defined]
    return state


def _bare(name: str) -> str:
    """Without what torch.compile and DataParallel put before it."""
    return name.removeprefix("_orig_mod.").removeprefix("module.")


def _read_any(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{":  # safetensors: 8 bytes of length, then JSON
        return load_file(path)
    zipped = head.startswith(b"PK")
    # Files from before torch 1.6, which vgg16-397923af.pth is, are no archives: nothing to map.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped or None)


def _what_it_is(path: Path, error: Exception) -> str:
    """What stands in a file that could not be read, in words that lead to the mend."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "is empty."
    if head.lstrip()[:1] == b"<":
        return "is a web page, not weights: the download answered HTML. Download it again."
    if "TorchScript" in str(error):
        return "is a TorchScript archive; a state_dict is wanted: torch.save(net.state_dict(), …)."
    if "Unsupported global" in str(error) or "Unsupported class" in str(error):
        return (
            "holds whole Python objects, which are not loaded for safety's sake;"
            " a state_dict is wanted: torch.save(net.state_dict(), …)."
        )
    return "is no file that torch.save or safetensors wrote, or it was cut off."


def fill(network: nn.Module, state: OrderedDict[str, Tensor], origin: str, name: str) -> None:
    """Give the network its weights, without a copy.

    Args:
        network: as :func:`predictor.models.zoo.build_empty` makes it, of as many classes as labels.
        state: parameter name → tensor.
        origin: where the weights came from, for the sentence.
        name: the model's, for the sentence.

    Raises:
        WeightsError: the weights belong to another network or to other labels.
    """
    wanted = network.state_dict()
    metadata = getattr(state, "_metadata", None) or getattr(wanted, "_metadata", None)
    state = OrderedDict(state)
    missing = wanted.keys() - state.keys()
    for counter in {n for n in missing if n.endswith("num_batches_tracked")}:
        state[counter] = torch.tensor(0)  # older than the counter, which only training reads
        missing.discard(counter)
    surplus = state.keys() - wanted.keys()
    if missing or surplus:
        lacks = f"it lacks {_some(missing)}" if missing else ""
        brings = f"it has {_some(surplus)}" if surplus else ""
        found = " and ".join(part for part in (lacks, brings) if part)
        raise WeightsError(f"{origin} does not hold weights of {name}: {found}.")
    wrong = [n for n in wanted if n in state and state[n].shape != wanted[n].shape]
    if wrong:
        raise WeightsError(f"{origin} does not fit {name}: {_misfit(wrong, state, wanted)}")
    state._metadata = metadata  # type: ignore[attr-defined]
    network.load_state_dict(state, assign=True)
    network.requires_grad_(False)


def _misfit(wrong: list[str], state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    last = wrong[0]
    found, expected = state[last].shape, wanted[last].shape
    if len(wrong) <= 2 and found[1:] == expected[1:]:  # the last layer's weight and bias
        return (
            f"it knows {found[0]} classes, and the labels name {expected[0]}."
            " PREDICTOR_LABELS names the labels that belong to it."
        )
    return f"{last} has the shape {tuple(found)}, and {tuple(expected)} is expected."


def _some(names: set[str]) -> str:
    first = min(names)
    return first if len(names) == 1 else f"{first} and {len(names) - 1} more names"
