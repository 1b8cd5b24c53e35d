"""Grad-CAM: where in an image a network finds the evidence for a class.

After Selvaraju et al., "Grad-CAM" (2017), https://arxiv.org/abs/1610.02391. Only the layers after
the last feature maps need a gradient; they are a few percent of the network. The layers before
run as for a prediction, so they may use operators that have no gradient.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from predictor.errors import NotExplainable
from predictor.models.outputs import pick
from predictor.models.scorer import Evidence

POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)


class GradCAM:
    """Explains a network's answers. Only one thread at a time may call it."""

    def __init__(self, network: nn.Module, select: str | int | None = None) -> None:
        """Copy a network that is in eval mode. The original is not changed.

        ``select`` says which part of what it returns are the logits.
        """
        self._network, self._select = twin(network), select
        self._pause: Callable[[], None] = lambda: None
        self._source: LayerOutput | None = None
        self._searched = False
        for module in self._network.modules():
            if next(module.children(), None) is None:
                module.register_forward_pre_hook(lambda *_: self._pause())

    def __call__(
        self, batch: Tensor, evidence: Evidence, pause: Callable[[], None]
    ) -> tuple[Tensor, Tensor]:
        """Run the network on one normalised image ``(1, 3, H, W)`` and explain a class.

        ``evidence`` says how each logit counts for the class. ``pause`` is called before each
        layer. If ``pause`` raises an exception, the explanation ends with it.

        Returns:
            ``(1, outputs)`` logits, and ``(h, w)`` float32 heat from 0 to 1, in the size of the
            last feature maps. Without evidence for the class, the heat is 0 everywhere.

        Raises:
            NotExplainable: the network has no feature maps.
        """
        self._pause = pause
        try:
            logits, features = self._forward(batch, self._last_feature_maps(batch))
        finally:
            self._pause = lambda: None  # the caller's function may hold a reference to a photo
        counts = torch.from_numpy(evidence(logits.detach()[0].float().cpu().numpy()))
        # The sum, not grad_outputs, for which torch would import sympy.
        (gradient,) = torch.autograd.grad((logits[0] * counts.to(logits)).sum(), features)
        features = features.detach().float()
        heat = (gradient.float().mean((2, 3), keepdim=True) * features).sum(1)[0].relu()
        return logits.detach(), heat / heat.max().clamp(min=torch.finfo(heat.dtype).tiny)

    def _last_feature_maps(self, batch: Tensor) -> LayerOutput:
        if not self._searched:
            self._source = last_feature_maps(self._network, batch)
            self._searched = True
        if self._source is None:
            raise NotExplainable(
                "This model cannot be explained: Grad-CAM needs the feature maps of a"
                " convolutional network, and this model has none."
            )
        return self._source

    def _forward(self, batch: Tensor, source: LayerOutput) -> tuple[Tensor, Tensor]:
        """Return the logits and the feature maps. Only layers after the maps keep a gradient."""
        kept: list[Tensor] = []
        calls = itertools.count(1)

        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            if next(calls) != source.call:
                return output
            torch.set_grad_enabled(True)  # no_grad() below restores the mode at its end
            kept.append(output.detach().requires_grad_())
            return kept[-1].clone()  # the next layer may work in place

        with source.module.register_forward_hook(keep), torch.no_grad():
            logits = pick(self._network(batch), self._select).reshape(1, -1)
        (features,) = kept
        return logits, features


def twin(network: nn.Module) -> nn.Module:
    """Return a copy of the network that uses the same weights in memory but has its own hooks."""
    tensors = itertools.chain(network.parameters(), network.buffers())
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})


class LayerOutput(NamedTuple):
    """An output in the forward pass: a module, and which of its calls (from 1) produced it."""

    module: nn.Module
    call: int


def last_feature_maps(network: nn.Module, batch: Tensor) -> LayerOutput | None:
    """Run the network once, and return the last output before pooling with a height and a width.

    This is VGG's last ReLU (14 × 14), ResNet's ``layer4``, EfficientNet's ``features`` and so on.
    Return None if the network ends with tokens, as a vision transformer does. The network must be
    in eval mode, and the batch ``(1, 3, H, W)``.
    """
    found: list[LayerOutput | None] = [None]
    calls: Counter[nn.Module] = Counter()
    pooled: list[Tensor] = []  # not their ids: Python reuses the id of a tensor that is freed

    def record(module: nn.Module, _inputs: Any, output: Any) -> None:
        calls[module] += 1
        if not isinstance(output, Tensor):
            return
        if isinstance(module, POOLS):
            pooled.append(output)
        elif output.ndim == 4 and min(output.shape[2:]) > 1:
            # A container whose last layer is a pool returns the pool's output.
            if not any(output is one for one in pooled):
                found.append(LayerOutput(module, calls[module]))
        elif output.ndim == 3:
            found.append(None)

    with ExitStack() as hooks, torch.no_grad():
        for module in network.modules():
            hooks.enter_context(module.register_forward_hook(record))
        network(batch)
    return found[-1]
