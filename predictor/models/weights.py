"""The weights: find or download the file, read it, and put it into a network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from predictor.errors import WeightsError, WeightsUnavailable
from predictor.models.old_names import current_name

if TYPE_CHECKING:
    from predictor.models.networks import ModelSpec

# Usual names of the state_dict inside a training checkpoint.
CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model", "net")


def locate(spec: ModelSpec, source: str) -> Path:
    """Return the path of the weights. Download them if necessary.

    ``source`` is a path, or ``auto`` for the published weights in a package or in torch's cache.

    Raises:
        WeightsError: the path is not a file, or the download differs from the published file.
        WeightsUnavailable: the published weights are not here and cannot be downloaded.
    """
    if source != "auto":
        path = Path(source).expanduser()
        if not path.is_file():
            raise WeightsError(f"PREDICTOR_WEIGHTS={source!r} is not a file.")
        return path
    if spec.packaged is not None:
        return spec.packaged()
    assert spec.url is not None, f"{spec.name} has neither a package nor a URL"
    path = Path(torch.hub.get_dir(), "checkpoints", spec.url.rpartition("/")[2])
    try:
        if not path.is_file():
            from predictor.models.download import download  # here: few starts download

            download(spec.url, path)
    except OSError as error:  # requests' exceptions are OSErrors, too
        raise WeightsUnavailable(
            f"The weights of {spec.name} are not in {path} and cannot be downloaded from {spec.url}"
            f" ({_reason(error)}). Put the file there, or set PREDICTOR_WEIGHTS to its path. For"
            " ImageNet's classes, PREDICTOR_MODEL=efficientnet_lite0 needs no download."
        ) from error
    return path


def _reason(error: BaseException) -> str:
    """Return the innermost cause, such as "Connection refused", without requests' wrapping."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def read(path: Path) -> OrderedDict[str, Tensor]:
    """Read a state_dict, memory-mapped if the format allows it. No code in the file is run.

    The state_dict may be inside a training checkpoint. Prefixes that torch.compile and
    DataParallel add are removed, and names from older torchvision versions are updated.

    Raises:
        WeightsError: the file is not a state_dict. The message says what the file is.
    """
    try:
        content = _read_any(path)
    except Exception as error:
        # An unpickler may raise any exception for other bytes, so the bytes determine the message.
        raise WeightsError(f"{path} {_what_it_is(path, error)}") from error
    for key in CHECKPOINT_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(f"{path} must hold a state_dict, but holds a {type(content).__name__}.")
    current = {name: current_name(_bare(str(name))) for name in content}
    state = OrderedDict((new, content[old]) for old, new in current.items() if new is not None)
    # MNASNet reads the metadata to learn which version of its class wrote the file.
    metadata = getattr(content, "_metadata", {})
    state._metadata = {_bare(name): m for name, m in metadata.items()}  # type: ignore[attr-defined]
    return state


def _bare(name: str) -> str:
    """Remove the prefixes of torch.compile and DataParallel."""
    return name.removeprefix("_orig_mod.").removeprefix("module.")


def _read_any(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{":  # safetensors: 8 bytes of length, then JSON
        from safetensors.torch import load_file  # here: few files are in this format

        return load_file(path)
    zipped = head.startswith(b"PK")
    # Files from before torch 1.6, such as vgg16-397923af.pth, are not zipped and cannot be mapped.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped or None)


def _what_it_is(path: Path, error: Exception) -> str:
    """Return the end of a sentence that says what an unreadable file is and what to do."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "is empty."
    if head.lstrip()[:1] == b"<":
        return "is a web page instead of weights. Download the file again."
    if "TorchScript" in str(error):
        return "is a TorchScript archive. Save a state_dict: torch.save(net.state_dict(), …)."
    if "Unsupported global" in str(error) or "Unsupported class" in str(error):
        return (
            "holds Python objects, which are not loaded because they may run any code."
            " Save a state_dict: torch.save(net.state_dict(), …)."
        )
    return "is truncated, or was not written by torch.save or safetensors."


def fill(network: nn.Module, state: OrderedDict[str, Tensor], origin: str, name: str) -> None:
    """Put the weights into a network without copying them. The network may be empty.

    Error messages contain ``origin``, the file's path, and ``name``, the model's name.

    Raises:
        WeightsError: the weights belong to another network or to other labels.
    """
    expected = network.state_dict()
    metadata = getattr(state, "_metadata", None) or getattr(expected, "_metadata", None)
    state = OrderedDict(state)
    for counter in (n for n in expected if n.endswith("num_batches_tracked")):
        state.setdefault(counter, torch.tensor(0))  # old files lack it; only training reads it
    missing, unexpected = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing or unexpected:
        found = [f"missing {_some(missing)}"] if missing else []
        found += [f"unexpected {_some(unexpected)}"] if unexpected else []
        raise WeightsError(f"{origin} does not hold weights of {name}: {', '.join(found)}.")
    if wrong := [n for n in expected if state[n].shape != expected[n].shape]:
        raise WeightsError(f"{origin} does not fit {name}: {_misfit(wrong, state, expected)}")
    state._metadata = metadata  # type: ignore[attr-defined]
    network.load_state_dict(state, assign=True)
    network.requires_grad_(False)


def _misfit(wrong: list[str], state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    first = wrong[0]
    shape, right = state[first].shape, expected[first].shape
    if len(wrong) <= 2 and shape[1:] == right[1:]:  # weight and bias of the last layer
        return (
            f"the weights have {shape[0]} classes and the labels {right[0]}."
            " Set PREDICTOR_LABELS to the labels of these weights."
        )
    return f"{first} has the shape {tuple(shape)}; expected {tuple(right)}."


def _some(names: set[str]) -> str:
    first = min(names)
    return first if len(names) == 1 else f"{first} and {len(names) - 1} more"


def classes_of(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes of weights, if only their last layer has another; else None."""
    shapes = [(state[name].shape, expected[name].shape) for name in expected if name in state]
    other = {found[0] for found, right in shapes if found != right and found[1:] == right[1:]}
    return other.pop() if len(other) == 1 else None
