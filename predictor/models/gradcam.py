"""Where in an image a network finds the evidence for a class: Grad-CAM.

After Selvaraju et al., "Grad-CAM" (2017), https://arxiv.org/abs/1610.02391. The gradient is taken
from the last feature maps on, a few percent of the network: what comes before needs none, and
so may be computed as for a prediction, by operators that have no gradient.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from predictor.errors import NotExplainable

POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)


class GradCAM:
    """Explains a network's answers; one thread at a time may call it."""

    def __init__(self, network: nn.Module) -> None:
        """Take an eval-mode network, which stays as it is."""
        self._network = twin(network)
        self._pause: Callable[[], None] = lambda: None
        self._place: Place | None = None
        self._looked = False
        for module in self._network.modules():
            if next(module.children(), None) is None:
                module.register_forward_pre_hook(lambda *_: self._pause())

    def __call__(
        self, batch: Tensor, class_index: int | None, pause: Callable[[], None]
    ) -> tuple[Tensor, Tensor]:
        """Score one image and explain a class.

        Args:
            batch: ``(1, 3, H, W)``, normalised, in the network's precision and on its device.
            class_index: the class to explain; the best one when not given.
            pause: called before each layer; what it raises ends the work.

        Returns:
            ``(1, classes)`` logits, and ``(h, w)`` float32 heat from 0 to 1, as many as the last
            feature maps have places; 0 everywhere when nothing speaks for the class.

        Raises:
            NotExplainable: the network has no feature maps to look at.
        """
        self._pause = pause
        try:
            logits, features = self._forward(batch, self._last_place(batch))
        finally:
            self._pause = lambda: None  # it may hold on to a photo
        index = int(logits.argmax()) if class_index is None else class_index
        (gradient,) = torch.autograd.grad(logits[0, index], features)
        features = features.detach().float()
        heat = (gradient.float().mean((2, 3), keepdim=True) * features).sum(1)[0].relu()
        return logits.detach(), heat / heat.max().clamp(min=torch.finfo(heat.dtype).tiny)

    def _last_place(self, batch: Tensor) -> Place:
        if not self._looked:
            self._place = last_feature_maps(self._network, batch)
            self._looked = True
        if self._place is None:
            raise NotExplainable(
                "This model's answers cannot be explained: it has no feature maps, which a"
                " convolutional network has."
            )
        return self._place

    def _forward(self, batch: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """The logits, and the feature maps, from which on they have a gradient."""
        kept: list[Tensor] = []
        calls = itertools.count(1)

        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            if next(calls) != place.call:
                return output
            torch.set_grad_enabled(True)  # until no_grad, below, puts back what was before
            kept.append(output.detach().requires_grad_())
            return kept[-1].clone()  # the next layer may work in place

        handle = place.module.register_forward_hook(keep)
        try:
            with torch.no_grad():
                logits = self._network(batch)
            (features,) = kept
            return logits, features
        finally:
            handle.remove()


def twin(network: nn.Module) -> nn.Module:
    """Another network with the same weights in the same memory: hooks there are not seen here."""
    tensors = (t for module in network.modules() for t in _tensors(module))
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})


def _tensors(module: nn.Module) -> list[Tensor]:
    """The module's own, packed weights among them: those are neither parameters nor buffers."""
    registered = [*module._parameters.values(), *module._buffers.values(), *vars(module).values()]
    return [tensor for tensor in registered if isinstance(tensor, Tensor)]


class Place(NamedTuple):
    """Where in a forward pass something comes out: of a module, at its so-manieth call."""

    module: nn.Module
    call: int


def last_feature_maps(network: nn.Module, batch: Tensor) -> Place | None:
    """Where the last output comes from that still says what is where.

    VGG's last ReLU (14 × 14), ResNet's ``layer4``, EfficientNet's ``features``, and so on: found by
    looking at what passes, before it is pooled. None where what comes last are tokens, as in a
    vision transformer.
    """
    found: list[Place | None] = [None]
    calls: Counter[nn.Module] = Counter()
    pooled: list[Tensor] = []  # themselves, and not their ids, which would be given out again

    def see(module: nn.Module, _inputs: Any, output: Any) -> None:
        calls[module] += 1
        if not isinstance(output, Tensor):
            return
        if isinstance(module, POOLS):
            pooled.append(output)
        elif output.ndim == 4 and min(output.shape[2:]) > 1:
            # A container that ends with a pool hands on the pool's output.
            if not any(output is one for one in pooled):
                found.append(Place(module, calls[module]))
        elif output.ndim == 3:
            found.append(None)

    handles = [module.register_forward_hook(see) for module in network.modules()]
    try:
        with torch.no_grad():
            network(batch)
    finally:
        for handle in handles:
            handle.remove()
    return found[-1]
