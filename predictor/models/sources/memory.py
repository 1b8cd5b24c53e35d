"""A network that is in memory already, as a notebook has it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from predictor.errors import ModelError
from predictor.models import description, loading
from predictor.models.labels import load_labels
from predictor.models.networks import FoundNetwork, ModelSpec
from predictor.models.reference import Reference
from predictor.models.scorer import LoadedModel
from predictor.models.sources import Request
from predictor.models.transforms import read_transform
from predictor.settings import Settings


def loader(
    network: Any, labels: Any, transform: Any, settings: Settings
) -> Callable[[Settings, int], LoadedModel]:
    """Copy a network, and return a function that loads the copy, as :class:`Classifier` calls it.

    Raises:
        StartError: it is not a network, it cannot be copied, or its description is not complete.
    """
    kept = _copy(network)
    content = {"labels": list(labels) if isinstance(labels, tuple) else labels}
    content["input"] = None if transform is None else read_transform(transform).as_json()
    given = description.describe({k: v for k, v in content.items() if v is not None}, "create_app")
    said = description.agree(given, description.from_settings(settings))
    if "weights" in said:
        raise ModelError(f"A network in memory has weights. Remove {said['weights'].origin}.")
    spec = ModelSpec(type(kept).__name__, lambda _: kept, filled=lambda: kept, proven=False)
    description.input_of(said, said, spec.name)
    names = load_labels(said["labels"].value) if "labels" in said else None

    def load(settings: Settings, cpus: int) -> LoadedModel:
        where = Reference("memory", spec.name)
        asked = Request(spec.name, said, names, settings, cpus)
        return loading.load(FoundNetwork(spec, asked), asked, where)

    return load


def _copy(network: Any) -> nn.Module:
    """Return a copy in eval mode, without the wrappers of training."""
    if not isinstance(network, nn.Module):
        raise ModelError(f"model is a {type(network).__name__}; it must be a torch.nn.Module.")
    while isinstance(network, nn.DataParallel | DistributedDataParallel):
        network = network.module
    network = getattr(network, "_orig_mod", network)  # torch.compile's wrapper
    try:
        copied: nn.Module = copy.deepcopy(network)
    except Exception as error:
        raise ModelError(f"The network cannot be copied: {error}") from error
    return copied.eval()
