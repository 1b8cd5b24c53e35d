"""A convolution, an addition and an activation as one oneDNN operator.

With separate operators, torch reorders a convolution's weights at every call, and the addition and
the activation each read all numbers once more. torch.compile uses the same operators.
"""

import platform
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Geometry(NamedTuple):
    """How a convolution moves over an image: the arguments of oneDNN's operators, in order."""

    padding: list[int]
    stride: list[int]
    dilation: list[int]
    groups: int


class Activation(NamedTuple):
    """An activation: oneDNN's name for it, and torch's function with its further arguments."""

    name: str
    function: Callable[..., Tensor]
    numbers: tuple[float, ...] = ()


# By whether several threads compute, and whether there are several images.
USES = ("packed_00", "packed_01", "packed_10", "packed_11")
NONE = Activation("none", lambda x: x)
RELU = Activation("relu", F.relu)


class FusedConv(nn.Module):
    """A convolution, and the addition and the activation after it, for inference on the CPU."""

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self, weight: Tensor, bias: Tensor | None, geometry: Geometry, activation: Activation = NONE
    ) -> None:
        """Keep the weights. The first calls move them to oneDNN's layouts for images of their size.

        There are layouts for one thread and for several, and for one image and for several. In the
        wrong one, oneDNN reorders the weights in each call: VGG16 in float32 took 1.4 to 2 times as
        long. Most are the same: of VGG16's convolutions, all four would have 238 MB, and have 85.
        """
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.geometry, self.activation, self._shape = geometry, activation, weight.shape
        # An explanation's copy of the network shares buffers.
        for use in USES:
            self.register_buffer(use, None, persistent=False)

    def forward(self, images: Tensor, addend: Tensor | None = None) -> Tensor:
        """``(N, C, H, W)`` → ``(N, C', H', W')``. The addend's shape broadcasts to the result's."""
        # oneDNN's operators have no gradient, which an explanation needs after the last feature
        # maps. For an image of one pixel, as in squeeze and excitation, they take longer.
        if images.requires_grad or images.shape[2:] == (1, 1) or not self._fits(images, addend):
            return self._one_by_one(images, addend)
        use = f"packed_{torch.get_num_threads() > 1:d}{len(images) > 1:d}"
        if (weight := getattr(self, use)) is None:
            # Two threads may do this at once, with the same result.
            weight = self.weight = self._pack(list(images.shape))
            setattr(self, use, weight)
        name, _, numbers = self.activation
        convolve, given = torch.ops.mkldnn._convolution_pointwise, (weight, self.bias)
        if addend is None:
            alone: Tensor = convolve(images, *given, *self.geometry, name, numbers, "")
            return alone
        then = None if name == "none" else name
        added: Tensor = convolve.binary(
            images, addend, *given, *self.geometry, "add", 1.0, then, numbers, None
        )
        return added

    def _pack(self, shape: list[int]) -> Tensor:
        """Return the weights in the layout for images of a shape, which other images may have."""
        # Without the shape, oneDNN may choose another layout than the one in which it computes, and
        # reorder the weights in each call. That took up to 50 times as long.
        reorder = torch.ops.aten.mkldnn_reorder_conv2d_weight
        new: Tensor = reorder(self._dense().to_mkldnn(), *self.geometry, shape)
        layout = torch.ops.mkldnn._get_mkldnn_serialized_md
        packed = [one for one in map(self._buffers.get, USES) if one is not None]
        same = (one for one in packed if torch.equal(layout(one), layout(new)))
        return next(same, new)

    def _fits(self, images: Tensor, addend: Tensor | None) -> bool:
        """Return whether the addend has the result's shape: the operator does not broadcast it."""
        if addend is None:
            return True
        padding, stride, dilation, _ = self.geometry
        kernel = self._shape[2:]
        sides = [
            (images.shape[2 + axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1)
            // stride[axis] + 1
            for axis in (0, 1)
        ]  # fmt: skip
        return addend.shape == (len(images), self._shape[0], *sides)

    def _dense(self) -> Tensor:
        weight = self.weight
        return weight.to_dense().reshape(self._shape) if weight.is_mkldnn else weight

    def _one_by_one(self, images: Tensor, addend: Tensor | None) -> Tensor:
        padding, stride, dilation, groups = self.geometry
        output = F.conv2d(images, self._dense(), self.bias, stride, padding, dilation, groups)
        output = output if addend is None else output + addend
        return self.activation.function(output, *self.activation.numbers)


def can_fuse(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether oneDNN computes in this precision on this device, and its operators work."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if platform.machine() not in ("x86_64", "AMD64"):  # not tried on other processors
        return False
    return dtype in (torch.float32, torch.bfloat16) and _works(dtype)


@cache
def _works(dtype: torch.dtype) -> bool:
    """Try the operators, which are private: any release of torch may change them."""
    ones = torch.ones((1, 1, 2, 2), dtype=dtype)
    weight, geometry = ones[..., :1, :1], Geometry([0, 0], [1, 1], [1, 1], 1)
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        conv = FusedConv(weight, None, geometry, RELU)
        with torch.no_grad():
            return bool((conv(-ones) == 0).all() and (conv(ones, ones) == 2).all())
    except (AttributeError, RuntimeError, TypeError):
        return False
