"""Build a network without memory for its weights, or with random ones."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class Uninitialised(TorchFunctionMode):
    """Skips the random initialisation of parameters on the "meta" device, which has no memory.

    To run such an initialisation, torch would import its compiler.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return the tensor unchanged if the function initialises it. Run any other function."""
        kwargs = kwargs or {}
        in_init = getattr(func, "__module__", "") == "torch.nn.init"
        if in_init or func in (Tensor.normal_, Tensor.uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def build_empty(build: Callable[[int], nn.Module], classes: int) -> nn.Module:
    """Return the network in eval mode, if possible without memory for its weights."""
    try:
        with torch.device("meta"), Uninitialised():
            network = build(classes)
    except (NotImplementedError, RuntimeError):  # RegNet's widths are tensors that need memory
        return _build_in_memory(build, classes)
    if {name for name, _ in network.named_buffers()} - network.state_dict().keys():
        return _build_in_memory(build, classes)  # no file has the values of such buffers
    return network.eval()


def _build_in_memory(build: Callable[[int], nn.Module], classes: int) -> nn.Module:
    with Uninitialised():
        return build(classes).eval()


def build_random(build: Callable[[int], nn.Module], classes: int, seed: int = 0) -> nn.Module:
    """Return the network in eval mode with random weights, the same ones for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(classes).eval()
