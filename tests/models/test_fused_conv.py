import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.vgg import cfgs, make_layers

from predictor.models.fused_conv import ConvReLU, can_pack, pack


def vgg11():
    """VGG11 without its hidden linear layers, whose random weights take seconds."""
    features = make_layers(cfgs["A"], batch_norm=False)
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def packed(network):
    return [m for m in network.modules() if isinstance(m, ConvReLU)]


@pytest.fixture(autouse=True)
def _a_processor_that_packs():
    if not can_pack(torch.device("cpu"), torch.float32):
        pytest.skip("convolutions are packed only on x86-64")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 3])
@torch.inference_mode()
def test_packed_network_has_the_same_logits(dtype, batch):
    if not can_pack(torch.device("cpu"), dtype):
        pytest.skip(f"this processor does not compute in {dtype}")
    torch.manual_seed(0)
    network = vgg11().eval().to(dtype, memory_format=torch.channels_last)
    images = torch.rand(batch, 3, 64, 64).to(dtype, memory_format=torch.channels_last)
    expected = network(images)
    pack(network)
    assert len(packed(network)) == 8
    scale = expected.abs().max().item()  # the logits of random weights are small
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype] * scale
    torch.testing.assert_close(network(images), expected, rtol=0, atol=tolerance)


@torch.inference_mode()
def test_stride_groups_dilation_and_missing_bias_are_kept():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(4, 8, (3, 5), stride=(2, 1), padding=(0, 2), bias=False),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, groups=4, dilation=2),
        nn.ReLU(),
    ).to(memory_format=torch.channels_last)
    images = torch.randn(2, 4, 33, 20).to(memory_format=torch.channels_last)
    expected = network(images)
    pack(network)
    assert len(packed(network)) == 2
    torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize(
    "steps",
    [
        (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        (nn.Conv2d(3, 4, 3), nn.SiLU()),
        (nn.Conv2d(3, 4, 3), nn.ReLU6()),
        (nn.Conv2d(3, 4, 3, padding="same"), nn.ReLU()),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU()),
    ],
)
def test_only_a_plain_convolution_with_relu_is_packed(steps):
    network = nn.Sequential(*steps)
    pack(network)
    assert list(network) == list(steps)


def test_residual_network_is_not_packed():
    network = resnet18()
    pack(network)
    assert packed(network) == []


@pytest.mark.slow
def test_other_devices_and_precisions_are_not_packed():
    for network in (vgg11().half(), vgg11().to("meta")):
        pack(network)
        assert packed(network) == []
