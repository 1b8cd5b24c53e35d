import pytest
import torch
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from predictor.models.fused_conv import RELU, FusedConv, Geometry, can_fuse
from predictor.models.fusion import fuse


def vgg11():
    """VGG11 without its hidden linear layers, whose random weights take seconds."""
    features = make_layers(cfgs["A"], batch_norm=False)
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


GEOMETRY = Geometry([0, 0], [1, 1], [1, 1], 1)


@pytest.fixture(autouse=True)
def _a_processor_that_fuses():
    if not can_fuse(torch.device("cpu"), torch.float32):
        pytest.skip("convolutions are fused only on x86-64")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 3])
@torch.inference_mode()
def test_fused_network_has_the_same_logits(dtype, batch):
    if not can_fuse(torch.device("cpu"), dtype):
        pytest.skip(f"this processor does not compute in {dtype}")
    torch.manual_seed(0)
    network = vgg11().eval().to(dtype, memory_format=torch.channels_last)
    images = torch.rand(batch, 3, 64, 64).to(dtype, memory_format=torch.channels_last)
    expected = network(images)
    fused = fuse(network)
    assert sum(isinstance(m, FusedConv) for m in fused.modules()) == 8
    scale = expected.abs().max().item()  # the logits of random weights are small
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype] * scale
    torch.testing.assert_close(fused(images), expected, rtol=0, atol=tolerance)


def test_weights_are_packed_once_and_have_a_gradient_afterwards():
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 8, 3, groups=2)
    fused = FusedConv(conv.weight.detach(), conv.bias, Geometry([0, 0], [1, 1], [1, 1], 2), RELU)
    images = torch.randn(1, 4, 9, 9)
    with torch.inference_mode():
        first = fused(images)
        packed = fused.weight
        assert packed.is_mkldnn
        assert torch.equal(fused(images), first)
        assert fused.weight is packed
    images.requires_grad_()
    result = fused(images)
    torch.testing.assert_close(result.detach(), first)
    (gradient,) = torch.autograd.grad(result.sum(), images)
    (expected,) = torch.autograd.grad(conv(images).relu().sum(), images)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("other", [(1, 2), (2, 1)], ids=["threads", "images"])
def test_weights_are_packed_once_for_one_and_for_several(monkeypatch, other, same):
    """The memory has a layout once, even if it is for two uses."""
    if not same:
        monkeypatch.setattr(torch.ops.mkldnn, "_get_mkldnn_serialized_md", lambda _: torch.rand(9))
    fused = FusedConv(torch.randn(8, 4, 3, 3), None, GEOMETRY, RELU)
    images = torch.randn(2, 4, 9, 9)
    threads, results = torch.get_num_threads(), []
    try:
        for size, count in ((1, 1), other, (1, 1)):
            torch.set_num_threads(count)
            with torch.inference_mode():
                results.append((fused(images[:size])[:1], fused.weight))
    finally:
        torch.set_num_threads(threads)
    (first, one), (second, several), (third, last) = results
    assert (one is several) == same
    assert last is several  # nothing was packed again
    torch.testing.assert_close(second, first)
    assert torch.equal(third, first)


def test_private_operators_take_the_arguments_that_are_used():
    """If this fails after an upgrade of torch, networks are served without fused operators."""
    operator = torch.ops.mkldnn._convolution_pointwise
    geometry = ["padding", "stride", "dilation", "groups"]
    names = [one.name for one in operator.default._schema.arguments]
    assert names == ["X", "W", "B", *geometry, "attr", "scalars", "algorithm"]
    names = [one.name for one in operator.binary._schema.arguments]
    unary = ["unary_attr", "unary_scalars", "unary_algorithm"]
    assert names == ["X", "other", "W", "B", *geometry, "binary_attr", "alpha", *unary]
