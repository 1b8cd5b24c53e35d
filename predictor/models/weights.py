"""The weights: find or download the file, and put its tensors into a network."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from predictor.errors import WeightsError, WeightsUnavailable
from predictor.models.checkpoints import Checkpoint, no_weights
from predictor.models.matching import Match, match

if TYPE_CHECKING:
    from predictor.models.networks import ModelSpec

log = logging.getLogger(__name__)

HEAD = 4  # parameters of one or two last layers


def locate(spec: ModelSpec, source: str) -> Path:
    """Return the path of the weights. Download them if necessary.

    ``source`` is the path of an existing file or folder, or ``auto`` for the published weights in a
    package or in torch's cache.

    Raises:
        WeightsError: the download differs from the published file.
        WeightsUnavailable: the published weights are not here and cannot be downloaded.
    """
    if source != "auto":
        return Path(source).expanduser()
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


def fill(
    network: nn.Module, checkpoint: Checkpoint, name: str, labels: int | None = None, said: str = ""
) -> None:
    """Put the weights into a network without copying them. The network may be empty.

    Args:
        network: its parameters get the file's tensors, in the file's precision.
        checkpoint: may hold more than the weights; the log says what was renamed or ignored.
        name: the model's name, for messages.
        labels: how many labels say how many outputs the network has; None: something else does.
        said: what says the labels, for messages.

    Raises:
        WeightsError: the weights belong to another network or to other labels.
    """
    expected = network.state_dict()
    found = match(checkpoint, expected)
    state = found.state
    for counter in (n for n in expected if n.endswith("num_batches_tracked")):
        state.setdefault(counter, torch.tensor(0))  # old files lack it; only training reads it
    missing = [n for n in expected if n not in state]
    if missing and checkpoint.model:
        raise no_weights(checkpoint)
    if missing or found.unexpected:
        text = _difference(missing, found.unexpected)
        raise WeightsError(f"{checkpoint.path} does not hold weights of {name}: {text}")
    if wrong := [n for n in expected if state[n].shape != expected[n].shape]:
        text = _misfit(wrong, state, expected, labels, said)
        raise WeightsError(f"{checkpoint.path} does not fit {name}: {text}")
    _log(checkpoint, found)
    # MNASNet requires the version of its class.
    state._metadata = expected._metadata  # type: ignore[attr-defined]
    network.load_state_dict(state, assign=True)
    network.requires_grad_(False)


def classes_of(checkpoint: Checkpoint, expected: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes of the weights; None if no shape or more than it differs.

    ``expected`` is the state_dict of the same network with another number of classes, which are the
    first dimension of each parameter whose shape differs.
    """
    state = match(checkpoint, expected).state
    pairs = ((tensor.shape, expected[name].shape) for name, tensor in state.items())
    classes = {
        one[0] if one and one[1:] == other[1:] else None for one, other in pairs if one != other
    }
    return classes.pop() if len(classes) == 1 else None


def _log(checkpoint: Checkpoint, found: Match) -> None:
    """Say what was renamed, ignored or not chosen."""
    parts = []
    if found.renamed:
        example = " → ".join(found.renamed[0])
        parts.append(f"{len(found.renamed)} names were changed, such as {example}")
    if found.ignored:
        parts.append(f"{_some(found.ignored)} were ignored")
    if checkpoint.objects:
        parts.append(f"the objects {_some(checkpoint.objects)} were not loaded")
    if found.others:
        places = ", ".join(found.others)
        parts.append(f"other weights that fit are {places} (weights_key in model.toml chooses)")
    if parts:
        log.info("%s: %s.", checkpoint.path.name, "; ".join(parts))


def _difference(missing: list[str], unexpected: list[str]) -> str:
    """Return the first names that differ. If only the last layers differ, say what to do."""
    found = [f"missing {_some(missing)}"] if missing else []
    found += [f"unexpected {_some(unexpected)}"] if unexpected else []
    text = f"{', '.join(found)}."
    if 0 < len(missing) <= HEAD and len(unexpected) <= 2 * HEAD:
        text += (
            " Only these layers differ: the network was changed before its training. Make the same"
            " change in a function `build` of your own and set PREDICTOR_MODEL=net.py:build."
        )
    return text


def _misfit(
    wrong: list[str], state: Mapping[str, Tensor], expected: Mapping[str, Tensor],
    labels: int | None, said: str,
) -> str:  # fmt: skip
    name, shape, right = wrong[0], state[wrong[0]].shape, expected[wrong[0]].shape
    if len(wrong) > HEAD or shape[1:] != right[1:]:
        return f"{name} has the shape {tuple(shape)}; expected {tuple(right)}."
    found = f"{name} has {shape[0]} classes, but"
    if said and right[0] == labels:
        return f"{found} {said} has {labels}. Set it to the labels of these {shape[0]} classes."
    advice = "Correct [arguments] in model.toml, or the code that builds the network."
    return f"{found} the network has {right[0]} outputs. {advice}"


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
