"""PyTorch networks that are built and then filled with weights: what their sources share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from predictor.errors import WeightsError
from predictor.images.preprocessing import Preprocessing
from predictor.models import checkpoints, weights
from predictor.models.building import build_empty, build_random
from predictor.models.checkpoints import Checkpoint
from predictor.models.description import Description, value_of
from predictor.models.devices import choose_device, choose_dtype, device_name
from predictor.models.network import Model
from predictor.models.scorer import RANDOM, Loaded, lanes_and_batch
from predictor.models.shared_weights import identify, load_shared
from predictor.models.sources import Request


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """How a network is built, and where its own weights are: in a file, or in what it builds."""

    name: str
    build: Callable[[int], nn.Module]  # number of classes → untrained network
    said: Description = field(default_factory=dict)
    url: str | None = None  # of the published weights; its file name ends in a SHA-256 prefix
    classes: int = 1000  # of the published weights
    packaged: Callable[[], Path] | None = None  # returns their path in a package
    filled: Callable[[], nn.Module] | None = None  # builds the network with its own weights
    origin: str = ""  # of the weights of ``filled``
    bfloat16: bool = False  # whether measurements showed the same answers as in float32
    # Whether it is known to work in channels last, with packed weights, and with memory that other
    # processes share. An own network may have view() where only reshape() would work.
    proven: bool = True


@dataclass(frozen=True, slots=True)
class FoundNetwork:
    """A network whose weights are not read yet."""

    spec: ModelSpec
    request: Request

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
        if source == "auto" and not spec.filled and classes not in (None, spec.classes):
            raise WeightsError(
                f"There are {classes} labels, but the published weights of {spec.name} have"
                f" {spec.classes} classes. Set PREDICTOR_WEIGHTS to the file of your own weights."
            )
        in_file = source != RANDOM and not (source == "auto" and spec.filled)
        path = weights.locate(spec, source) if in_file else None
        key = value_of(self.request.said, "weights_key")
        build = Builder(spec, classes, key, self.request.said)
        make = partial(build, path, source == RANDOM, device, dtype)
        if on_cpu and spec.proven and (fds := settings.shared_weights):
            said = value_of(self.request.said, "arguments")
            form = repr((self.request.target, said, source, key, classes, dtype, torch.__version__))
            identity = identify(path) if path else spec.origin
            network = load_shared(
                fds, identity, form, make, lambda state: build.empty(Checkpoint(Path(), state))
            )
        else:
            network = make()
        parameters = sum(p.numel() for p in network.parameters())  # before weights are packed
        lanes, batch = lanes_and_batch(on_cpu, threads, settings.max_batch_size)
        select = value_of(self.said | self.request.said, "output.select")
        return Loaded(
            Model(
                network, input, threads=threads, lanes=lanes, max_batch_size=batch, select=select,
                plain=not spec.proven,
            ),
            weights=str(path or (RANDOM if source == RANDOM else spec.origin)),
            device=device_name(device),
            precision=str(dtype).removeprefix("torch."),
            threads=threads,
            parameters=parameters,
            outputs=build.classes if spec.proven else None,
        )  # fmt: skip

    def unpacked(self, input: Preprocessing, outputs: int) -> Model:
        """Load the network for an export: its layers are not replaced, and its memory is its own.

        It is contiguous, too. ``outputs`` is the number that it has when it is served.
        """
        found = replace(self, spec=replace(self.spec, proven=False))
        model = found.load(input, outputs).scorer
        assert isinstance(model, Model)
        return model


class Builder:
    """Builds a network for the number of classes that its weights have.

    Two labels may belong to one logit. Otherwise the labels, if there are any, are right and the
    weights are refused.
    """

    def __init__(
        self, spec: ModelSpec, labels: int | None, key: str | None, said: Description
    ) -> None:
        self._spec, self._labels, self._key = spec, labels, key
        self._origin = said["labels"].origin if spec.proven and "labels" in said else ""
        self.classes = labels or spec.classes

    def __call__(
        self, path: Path | None, random: bool, device: torch.device, dtype: torch.dtype
    ) -> nn.Module:
        """Return the network on its device, in its precision, with the weights of a file or own."""
        if path is not None:
            checkpoint = checkpoints.read(path, self._key)
            network = self.empty(checkpoint)
            weights.fill(network, checkpoint, self._spec.name, self._labels, self._origin)
        elif self._spec.filled is None or random:
            network = build_random(self._spec.build, self.classes)
        else:
            network = self._spec.filled()
        network.requires_grad_(False)
        for module in filter(lambda module: module.training, network.modules()):
            module.training = False  # its eval() does something else
        layout = torch.channels_last if self._spec.proven else torch.contiguous_format
        return network.to(device, dtype, memory_format=layout)  # type: ignore[call-overload, no-any-return]

    def empty(self, checkpoint: Checkpoint) -> nn.Module:
        """Return the network for these weights, if possible without memory for its own."""
        if not self._spec.proven:
            return build_random(self._spec.build, self.classes)
        network = build_empty(self._spec.build, self.classes)
        found = weights.classes_of(checkpoint, network.state_dict())
        if found and (self._labels is None or (self._labels, found) == (2, 1)):
            self.classes = found
            network = build_empty(self._spec.build, found)
        return network
