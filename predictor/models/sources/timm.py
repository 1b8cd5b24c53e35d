"""Models of timm, by name and tag or from a folder, with the preprocessing of their weights."""

from __future__ import annotations

import difflib
import re
from functools import partial
from math import floor
from pathlib import Path
from typing import Any

from torch import nn

from predictor.errors import ModelError, WeightsUnavailable
from predictor.images.preprocessing import CHANNELS
from predictor.models.building import build_empty
from predictor.models.description import Description, describe, value_of
from predictor.models.networks import FoundNetwork, ModelSpec
from predictor.models.sources import Request

FOLDER = "local-dir:"


def find(request: Request) -> FoundNetwork:
    """Find ``convnext_tiny.fb_in1k``, or ``local-dir:FOLDER`` with timm's config.json and weights.

    ``arguments`` of ``model.toml`` are passed to ``timm.create_model``.

    Raises:
        ModelError: timm has no such model, or cannot read the folder.
        ModuleNotFoundError: timm is not installed.
    """
    target, folder = request.target, request.target.removeprefix(FOLDER)
    in_folder = target.startswith(FOLDER)
    build = partial(_create, target, value_of(request.said, "arguments") or {})
    network: Any = _untrained(build, target)
    if not (classes := network.num_classes) and request.weights == "auto":
        raise ModelError(f"timm:{target} has no classes: its outputs are features.")
    spec = ModelSpec(
        name=re.sub(r"[^\w.-]", "_", Path(folder).name),
        build=build,
        said=_said(network, request),
        classes=classes or 1000,
        packaged=(lambda: Path(folder).expanduser()) if in_folder else None,
        filled=None if in_folder else partial(_download, build),
        origin=f"timm:{target}",
    )
    return FoundNetwork(spec, request)


def _untrained(build: partial[nn.Module], target: str) -> nn.Module:
    """Return the network without weights. Raise ModelError if timm cannot build it."""
    import timm

    try:
        return build_empty(lambda _: build(None), 0)
    except Exception as error:
        names = timm.list_models() + timm.list_models(pretrained=True)
        close = difflib.get_close_matches(target, names, n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise ModelError(f"timm cannot build {target!r}: {error}.{hint}") from error


def _create(
    target: str, arguments: dict[str, Any], classes: int | None, pretrained: bool = False
) -> nn.Module:
    """Build a network with ``classes`` outputs; None: as many as its weights have."""
    import timm

    network: nn.Module = timm.create_model(
        target, pretrained, **{"num_classes": classes} | arguments
    )
    return network


def _download(build: partial[nn.Module]) -> nn.Module:
    """Return the network with the published weights, from timm's cache or downloaded by timm."""
    try:
        return build(None, pretrained=True).eval()
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WeightsUnavailable(
            f"The weights of timm:{build.args[0]} are not on this machine and cannot be downloaded"
            f" ({reason}). Set PREDICTOR_WEIGHTS to a file of them, such as model.safetensors."
        ) from error


def _said(network: Any, request: Request) -> Description:
    """Return what timm's configuration of the weights says, and the operator does not."""
    from timm.data.config import resolve_model_data_config
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    config, cfg = resolve_model_data_config(network), network.pretrained_cfg
    channels, *size = config["input_size"]
    said = {
        "size": size, "resize": _resize(config, size), "interpolation": config["interpolation"],
        "channels": CHANNELS.get(channels, channels), "mean": config["mean"], "std": config["std"],
    }  # fmt: skip
    content: dict[str, Any] = {
        "input": {key: value for key, value in said.items() if f"input.{key}" not in request.said}
    }
    if names := cfg.get("label_names"):
        texts = cfg.get("label_descriptions") or {}
        content["labels"] = {"label_names": names, "label_descriptions": texts}
    elif network.num_classes == 1000:
        content["labels"] = "imagenet"
    elif subset := infer_imagenet_subset(network):
        info = ImageNetInfo(subset)
        texts = info.label_descriptions(as_dict=True)
        content["labels"] = {"label_names": info.label_names(), "label_descriptions": texts}
    return describe(content, f"timm:{request.target}")


def _resize(config: dict[str, Any], size: list[int]) -> Any:
    """Return the rule that timm's ``create_transform`` follows."""
    first = [floor(side / config["crop_pct"]) for side in size]
    if config["crop_mode"] == "squash":
        return "squash" if first == size else first
    if config["crop_mode"] == "center" and len(set(size)) == 1:
        return first[0]
    return f"{config['crop_mode']}, {' x '.join(map(str, size))}"
