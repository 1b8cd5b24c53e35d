"""Replace each convolution of a network, and the layers after it, by one operator.

Batch normalisation becomes part of the weights. :class:`predictor.models.fused_conv.FusedConv`
computes an addition and an activation together with the convolution.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock, get_ident
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from predictor.models.fused_conv import NONE, RELU, Activation, FusedConv, Geometry, can_fuse

log = logging.getLogger(__name__)
_turn = Lock()  # torch.fx would not restore what it replaces if two traces overlapped

RELU6 = Activation("hardtanh", F.hardtanh, (0.0, 6.0))
HARDSWISH, SILU = Activation("hardswish", F.hardswish), Activation("swish", F.silu)
ACTIVATIONS: dict[Any, Activation] = {
    nn.ReLU: RELU, F.relu: RELU, torch.relu: RELU, nn.ReLU6: RELU6, F.relu6: RELU6,
    nn.Hardswish: HARDSWISH, F.hardswish: HARDSWISH, nn.SiLU: SILU, F.silu: SILU,
}  # fmt: skip
ADDITIONS = operator.add, operator.iadd, torch.add
# Without effect in eval mode. The last is torchvision's, which this module does not import.
WITHOUT_EFFECT = "Identity", "Dropout", "StochasticDepth"


def fuse(network: nn.Module) -> nn.Module:
    """Return a network that uses fused operators, in eval mode; or the same network.

    It is the same if oneDNN cannot compute in its precision, if it has hooks, if nothing can be
    fused, or if torch.fx cannot follow it, as where a branch depends on the photo.
    """
    parameter = next(network.parameters())
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    if hooked or not can_fuse(parameter.device, parameter.dtype):
        return network
    tracer = _Tracer()
    try:
        with _turn:
            graph = tracer.trace(network)
        traced = fx.GraphModule(network, graph, type(network).__name__)
    except Exception as error:  # of the network's own code, which gets no photos here
        log.debug("%s is not fused: %s", type(network).__name__, error)
        return network
    return traced if _Fusion(traced, tracer.results).run() else network


class _Proxy(fx.Proxy):
    """Stands for a tensor. torch.fx would make ``x += y`` a new tensor, and others keep ``x``."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __imul__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})


class _Tracer(fx.Tracer):
    """Follows a network into the modules that contain a convolution, and into no others.

    The others stay modules: explanations look at the outputs of modules. ``results`` are those of
    the modules that it follows.

    torch.fx replaces methods of ``nn.Module`` meanwhile, for all threads. So what other threads do,
    which is to run models that are served, is passed on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.results: list[fx.Node] = []
        self._thread = get_ident()

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if get_ident() != self._thread:
            return forward(*args, **kwargs)
        result = super().call_module(m, forward, args, kwargs)
        if isinstance(result, fx.Proxy):
            self.results.append(result.node)
        return result

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        has_conv = any(isinstance(part, nn.Conv2d) for part in m.modules())
        return not has_conv or super().is_leaf_module(m, module_qualified_name)


@dataclass(frozen=True, slots=True)
class _Conv:
    """A convolution in the graph, and where its result, or that of what follows it, is."""

    images: fx.Node
    weight: Tensor
    bias: Tensor | None
    geometry: Geometry
    last: fx.Node


class _Fusion:
    """Changes a traced network."""

    def __init__(self, traced: fx.GraphModule, results: list[fx.Node]) -> None:
        self._traced, self._graph, self._results = traced, traced.graph, results
        self._modules: dict[Any, nn.Module] = dict(traced.named_modules())

    def run(self) -> bool:
        """Replace the convolutions. Return whether anything was fused with one of them."""
        for node in self._graph.nodes:
            module = self._module(node)
            if type(module).__name__ in WITHOUT_EFFECT and not module.training:
                node.replace_all_uses_with(node.args[0])
        self._graph.eliminate_dead_code()
        self._order = {node: number for number, node in enumerate(self._graph.nodes)}
        fused, end = False, 0
        for node in list(self._graph.nodes):
            if conv := self._conv(node):
                fused, end = self._replace(conv) or fused, self._order[node]
        self._graph.eliminate_dead_code()
        self._show_results(end)
        self._traced.delete_all_unused_submodules()
        self._traced.recompile()
        return fused

    def _show_results(self, end: int) -> None:
        """Let modules return again what those without a convolution after them returned.

        An explanation looks for the last of them, such as the joined branches of an inception.
        """
        left = [one for one in self._graph.nodes if one.op in ("call_function", "call_method")]
        for node in self._results:
            if node in left and self._order[node] > end:
                name = f"result_{self._order[node]}"
                self._traced.add_submodule(name, nn.Identity())
                with self._graph.inserting_after(node):
                    shown = self._graph.call_module(name, (node,))
                node.replace_all_uses_with(shown, partial(operator.is_not, shown))

    def _module(self, node: fx.Node | None) -> Any:
        return self._modules.get(node.target) if node and node.op == "call_module" else None

    def _conv(self, node: fx.Node) -> _Conv | None:
        """Return the convolution that a node computes, as a module or as a function."""
        module, images = self._module(node), node.args[0] if node.args else None
        moves: Any
        if type(module) is nn.Conv2d and module.padding_mode == "zeros":
            weight, bias = module.weight, module.bias
            moves = module.stride, module.padding, module.dilation, module.groups
        elif node.target is F.conv2d and len(node.args) == 7 and _is_own(node.args[1]):
            weight, bias = (self._attribute(one) for one in node.args[1:3])
            moves = node.args[3:]
        else:
            return None
        if isinstance(moves[1], str) or not isinstance(images, fx.Node):
            return None
        stride, padding, dilation = map(_pair, moves[:3])
        geometry = Geometry(padding, stride, dilation, moves[3])
        return self._padded(_Conv(images, weight, bias, geometry, node))

    def _attribute(self, node: Any) -> Any:
        return node and operator.attrgetter(node.target)(self._traced)

    def _padded(self, conv: _Conv) -> _Conv:
        """Let a depthwise convolution do the padding before it: more on one side by zero weights.

        Padding copies the image. In EfficientNet-Lite0, it took 3 of 20 ms.
        """
        pad, (padding, stride, dilation, groups) = self._module(conv.images), conv.geometry
        if type(pad) is not nn.ZeroPad2d or groups == 1 or dilation != [1, 1]:
            return conv
        left, right, top, bottom = pad.padding
        more = (
            max(right - left, 0),
            max(left - right, 0),
            max(bottom - top, 0),
            max(top - bottom, 0),
        )
        padding = [padding[0] + max(top, bottom), padding[1] + max(left, right)]
        geometry = Geometry(padding, stride, dilation, groups)
        weight, images = F.pad(conv.weight, more), conv.images.args[0]
        assert isinstance(images, fx.Node)
        return replace(conv, images=images, weight=weight, geometry=geometry)

    def _replace(self, conv: _Conv) -> bool:
        """Return whether more than the convolution itself was replaced."""
        first = place = conv.last
        given: tuple[fx.Node, ...] = (conv.images,)
        conv = self._with_norm(conv)
        addend = self._addend(conv)
        if addend:
            last = _only_user(conv.last)
            # What is computed after the convolution can be added only there.
            place = last if self._order[addend] > self._order[first] else place
            conv, given = replace(conv, last=last), (conv.images, addend)
        activation, last = self._activation(conv.last)
        name = f"fused_{self._order[first]}"
        fused = FusedConv(conv.weight, conv.bias, conv.geometry, activation)
        self._traced.add_submodule(name, fused)
        with self._graph.inserting_before(place):
            new = self._graph.call_module(name, given)
        self._order[new] = self._order[place]
        last.replace_all_uses_with(new)
        return last is not first

    def _with_norm(self, conv: _Conv) -> _Conv:
        norm = self._module(after := _only_user(conv.last))
        if type(norm) is not nn.BatchNorm2d or norm.training or norm.running_mean is None:
            return conv
        weight, bias = fold(conv.weight, conv.bias, norm)
        return replace(conv, weight=weight, bias=bias, last=after)

    def _addend(self, conv: _Conv) -> fx.Node | None:
        """Return what is added to the result, and to nothing else, or None."""
        sum_ = _only_user(conv.last)
        if sum_ is None or sum_.target not in ADDITIONS or sum_.kwargs or len(sum_.args) != 2:
            return None
        one, other = sum_.args
        addend = other if one is conv.last else one
        if not isinstance(addend, fx.Node) or addend is conv.last:
            return None
        if sum_.target is operator.iadd and one is addend:  # others may use what it changes
            return None
        # The convolution would move behind the addend; until then, its images must not change.
        later = self._order[addend] > self._order[conv.last]
        return None if later and len(conv.images.users) > 1 else addend

    def _activation(self, last: fx.Node) -> tuple[Activation, fx.Node]:
        after = _only_user(last)
        if after is None:
            return NONE, last
        module = self._module(after)
        activation = ACTIVATIONS.get(type(module) if module else after.target, NONE)
        return activation, last if activation is NONE else after


def fold(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the weight and the bias of a convolution with a batch normalisation after it."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.double()
    shift = -norm.running_mean.double() if bias is None else bias.double() - norm.running_mean
    shift = shift * scale if norm.bias is None else shift * scale + norm.bias
    folded = weight.double() * scale.reshape(-1, 1, 1, 1)
    return folded.to(weight.dtype), shift.to(weight.dtype)


def _only_user(node: fx.Node) -> Any:  # a node or None
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_own(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.op == "get_attr"


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
