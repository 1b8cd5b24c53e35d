"""PyTorch networks that are built and then filled with weights: what their sources share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import torch
from torch import nn

from predictor.images.preprocessing import Preprocessing
from predictor.models import checkpoints, weights
from predictor.models.building import build_empty, build_random
from predictor.models.checkpoints import Checkpoint
from predictor.models.description import Description, value_of
from predictor.models.devices import choose_device, choose_dtype, device_name
from predictor.models.network import Model
from predictor.models.scorer import RANDOM, Loaded
from predictor.models.shared_weights import load_shared
from predictor.models.sources import Request

Read = Callable[[], Checkpoint]

# A forward pass of VGG16 in float32 holds 30 to 45 MB of activations per image, so a machine with
# many processors should not run one pass on each processor. More than two lanes were not measured.
MAX_LANES = 4
# Measured with VGG16 in float32, two passes at once on two processors. Batches of 2: 6.9 images/s
# and 129 MB of activations. Batches of 4: 6.5 images/s and 332 MB. 32 on a GPU was not measured.
CPU_BATCH, CUDA_BATCH = 2, 32
PUBLISHED = 1000  # classes of the published weights


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """How a network is built, and where its published weights are."""

    name: str
    build: Callable[[int], nn.Module]  # number of classes → untrained network
    said: Description = field(default_factory=dict)
    url: str | None = None  # of the published weights; its file name ends in a SHA-256 prefix
    packaged: Callable[[], Path] | None = None  # returns their path in a package
    bfloat16: bool = False  # whether measurements showed the same answers as in float32


@dataclass(frozen=True, slots=True)
class FoundNetwork:
    """A network whose weights are not read yet."""

    spec: ModelSpec
    request: Request
    proven: bool = True

    @property
    def name(self) -> str:
        """The network's name."""
        return self.spec.name

    @property
    def said(self) -> Description:
        """What is known about the published weights."""
        return self.spec.said

    def load(self, input: Preprocessing, classes: int | None) -> Loaded:
        """Build the network, fill it and put it on its device."""
        settings, spec, threads = self.request.settings, self.spec, self.request.cpus
        device = choose_device(settings.device)
        on_cpu = device.type == "cpu"
        dtype = choose_dtype(settings.precision, device, spec.bfloat16)
        torch.set_num_threads(threads)  # for the conversions below, on this thread
        source = self.request.weights
        path = None if source == RANDOM else weights.locate(spec, source)
        key = value_of(self.request.said, "weights_key")
        read = cache(partial(checkpoints.read, path, key)) if path else None
        own = read if source not in ("auto", RANDOM) else None
        classes = _classes(spec, own, classes) if own else classes or PUBLISHED
        build = partial(_build, spec, classes, read, device, dtype)
        if on_cpu and self.proven and (fd := settings.shared_weights_fd) is not None:
            empty = partial(build_empty, spec.build, classes)
            network = load_shared(fd, f"{spec.name} {path} {key} {dtype}", build, empty)
        else:
            network = build()
        parameters = sum(p.numel() for p in network.parameters())  # before weights are packed
        lanes = min(threads, MAX_LANES) if on_cpu else 1
        batch = settings.max_batch_size or (CPU_BATCH if on_cpu else CUDA_BATCH)
        select = value_of(self.said | self.request.said, "output.select")
        return Loaded(
            Model(
                network, input, select=select, threads=threads, lanes=lanes, max_batch_size=batch
            ),
            weights=RANDOM if path is None else str(path),
            device=device_name(device),
            precision=str(dtype).removeprefix("torch."),
            threads=threads,
            parameters=parameters,
            outputs=classes if self.proven else None,
        )


def _classes(spec: ModelSpec, read: Read, labels: int | None) -> int:
    """Return the number of classes of the operator's own weights, or of the labels if unclear.

    Two labels may belong to one logit. Otherwise the labels are right, and the weights refused.
    """
    expected = build_empty(spec.build, labels or PUBLISHED).state_dict()
    found = weights.classes_of(read(), expected)
    fits = labels is None or (labels, found) == (2, 1)
    return found if found and fits else labels or PUBLISHED


def _build(
    spec: ModelSpec, classes: int, read: Read | None, device: torch.device, dtype: torch.dtype
) -> nn.Module:
    """Return the network on its device, in its precision. Without a file, weights are random."""
    if read is None:
        network = build_random(spec.build, classes)
    else:
        network = build_empty(spec.build, classes)
        weights.fill(network, read(), spec.name)
    return network.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
