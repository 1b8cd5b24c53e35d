"""Fused networks answer as the original ones, also where fusing would be wrong."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from photographs import photographs
from predictor.models import fused_conv, fusion
from predictor.models import network as network_module
from predictor.models.fused_conv import FusedConv, can_fuse
from predictor.models.fusion import fuse
from predictor.models.loading import load_model
from predictor.models.sources.torchvision import find_model
from predictor.settings import Settings


@pytest.fixture(autouse=True)
def _a_processor_that_fuses():
    if not can_fuse(torch.device("cpu"), torch.float32):
        pytest.skip("networks are fused only on x86-64")


def trained(network):
    """Give batch normalisations statistics that differ from what they begin with."""
    torch.manual_seed(0)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
            norm.running_mean.normal_(0, 0.5)
            norm.running_var.uniform_(0.2, 3)
            if norm.affine:
                nn.init.normal_(norm.weight, 1, 0.3)
                nn.init.normal_(norm.bias)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def norm(channels=8, **arguments):
    return nn.BatchNorm2d(channels, **arguments)


class Block(nn.Module):
    """Applies a function to two convolutions with their normalisations, and to a batch."""

    def __init__(self, function):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), norm(4))
        self.other = nn.Sequential(nn.Conv2d(4, 4, 1), norm(4))
        self.relu = nn.ReLU(inplace=True)
        self.function = function

    def forward(self, images):
        return self.function(self, images)


def added(self, images):
    result = self.one(images)
    result += images
    return self.relu(result)


def changed_before_the_sum(self, images):
    copied = images * 2
    result = self.one(copied)
    changed = self.relu(copied)
    return result + self.other(changed)


def added_to_what_others_use(self, images):
    kept = copied = images * 2
    copied += self.one(images)
    return kept + copied


def conv(*arguments, **more):
    return nn.Conv2d(*arguments, **more)


SEQUENCES = {
    "bias": [conv(4, 8, 3), norm(), nn.ReLU()],
    "no bias, groups, dilation": [
        conv(4, 8, 3, groups=2, dilation=2, bias=False), norm(), nn.Hardswish()
    ],
    "stride, rectangle": [conv(4, 8, (3, 5), (2, 1), (0, 2)), norm(affine=False), nn.SiLU()],
    "depthwise": [conv(4, 8, 3, groups=4), norm(eps=0.1), nn.ReLU6()],
    "no normalisation": [conv(4, 8, 3), nn.ReLU()],
    "no activation": [conv(4, 8, 3), norm()],
    "dropout between": [conv(4, 8, 3), norm(), nn.Dropout(), nn.Identity(), nn.ReLU()],
    "normalisation before": [norm(4), conv(4, 8, 3, padding=1), nn.ReLU()],
    "image of one pixel": [nn.AdaptiveAvgPool2d(1), conv(4, 8, 1), norm(), nn.ReLU()],
    "padding before": [
        nn.ZeroPad2d((0, 1, 2, 1)), conv(4, 8, 3, 2, groups=4, padding=1), norm(), nn.ReLU()
    ],
    "padding before, dilation": [
        nn.ZeroPad2d((0, 1, 2, 1)), conv(4, 8, 3, groups=4, dilation=2), norm(), nn.ReLU()
    ],
}  # fmt: skip
FUNCTIONS = {
    "sum": added,
    "two branches": lambda self, x: self.relu(self.one(x) + self.other(x)),
    "sum of two sizes": lambda self, x: self.one(x) + self.other(x.mean((2, 3), keepdim=True)),
    "sum that is wider": lambda self, x: self.other(x[..., :1]) + x,
    "sum of a number": lambda self, x: self.one(x) + 1,
    "twice itself": lambda self, x: (lambda y: torch.add(y, y))(self.one(x)),
    "factor": lambda self, x: torch.add(self.one(x), x, alpha=3),
    "functions": lambda self, x: F.relu6(self.one(F.silu(self.other(x)))) + torch.relu(x),
    "result used twice": lambda self, x: (lambda y: self.relu(y * 1) + y)(self.one(x)),
    "modules used twice": lambda self, x: self.one(self.relu(self.one(x))) + self.other(x),
    "changed before the sum": changed_before_the_sum,
    "added to what others use": added_to_what_others_use,
}  # fmt: skip


def fused(network):
    return [m for m in network.modules() if isinstance(m, FusedConv)]


def compare(network, images):
    """Fuse a copy; compare its results for one image and for several."""
    found = fuse(copy.deepcopy(network))
    for batch in (images[:1], images):
        with torch.inference_mode():
            expected, answer = network(batch.clone()), found(batch.clone())
        torch.testing.assert_close(
            answer, expected, rtol=0, atol=1e-5 * float(expected.abs().max())
        )
    return found


def some_images(channels=4, side=17):
    torch.manual_seed(1)
    images = torch.randn(3, channels, side, side)
    return images.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", SEQUENCES)
def test_fused_sequence_gives_the_same_result(name):
    found = compare(trained(nn.Sequential(*copy.deepcopy(SEQUENCES[name]))), some_images())
    assert len(fused(found)) == 1
    kinds = {type(module) for module in found.modules()}
    assert not kinds & {nn.Conv2d, nn.ReLU, nn.SiLU, nn.Hardswish, nn.ReLU6, nn.Dropout}
    assert (nn.BatchNorm2d in kinds) == (name == "normalisation before")
    assert (nn.ZeroPad2d in kinds) == (name == "padding before, dilation")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_fused_function_gives_the_same_result(name):
    assert fused(compare(trained(Block(FUNCTIONS[name])), some_images()))


def test_training_and_batch_statistics_are_not_folded():
    network = trained(nn.Sequential(conv(4, 8, 3), norm(track_running_stats=False)))
    assert fuse(network) is network
    network = trained(nn.Sequential(conv(4, 8, 3), norm()))
    network[1].train()
    assert fuse(network) is network


class Branch(nn.Module):
    """Its way depends on what it sees."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU()

    def forward(self, images):
        return self.relu(self.conv(images)) if images.mean() > 0 else images


class Kept(nn.Conv2d):
    """A convolution that computes something else."""

    def forward(self, images):
        return super().forward(images) * self.weight.mean()


def hooked():
    network = nn.Sequential(conv(3, 4, 3), nn.ReLU())
    network[0].register_forward_hook(lambda *_: None)
    return network


@pytest.mark.parametrize(
    "network",
    [
        Branch(), hooked(), nn.Sequential(conv(3, 4, 3), nn.GELU()),
        nn.Sequential(conv(3, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU()),
        nn.Sequential(conv(3, 4, 3, padding="same"), nn.ReLU()),
        nn.Sequential(conv(3, 4, 3), nn.ReLU()).half(),
        nn.Sequential(conv(3, 4, 3), nn.ReLU()).to("meta"),
    ],
    ids=["branch", "hook", "other activation", "reflect", "same", "half", "meta"],
)  # fmt: skip
def test_network_stays_as_it_is(network):
    assert fuse(network.eval()) is network


def test_convolution_of_another_class_stays_in_the_network():
    network = trained(nn.Sequential(Kept(4, 8, 3), nn.ReLU(), conv(8, 8, 3), nn.ReLU()))
    compare(network, some_images())


def test_without_the_private_operators_nothing_is_fused(monkeypatch):
    network = nn.Sequential(conv(3, 4, 3), nn.ReLU())
    monkeypatch.setattr(fusion, "can_fuse", lambda *_: False)
    assert fuse(network) is network

    def changed(*_):
        raise TypeError("takes other arguments")

    monkeypatch.setattr(FusedConv, "forward", changed)
    fused_conv._works.cache_clear()
    assert not can_fuse(torch.device("cpu"), torch.float32)
    fused_conv._works.cache_clear()


def test_embedded_models_logits_stay_within_a_ten_thousandth(monkeypatch):
    """Of the largest, with its real weights, on photographs."""
    settings = Settings(model="efficientnet_lite0", precision="float32")
    served = load_model(settings, 2).scorer
    assert len(fused(served.network)) == 49
    monkeypatch.setattr(network_module, "fuse", lambda network: network)
    original = load_model(settings, 2).scorer
    assert not fused(original.network)
    pixels = [served.preprocessing(photo) for photo in photographs()]
    expected = original.logits(pixels)
    assert np.abs(served.logits(pixels) - expected).max() < 1e-4 * np.abs(expected).max()


def test_networks_that_are_served_run_while_others_are_fused():
    """torch.fx replaces methods of all modules while it traces one."""
    served, images = nn.Sequential(conv(4, 8, 3), nn.ReLU()).eval(), some_images()
    call, expected, wrong = nn.Module.__call__, served(images), []
    ended = threading.Event()

    def serve():
        while not ended.is_set():
            try:
                assert torch.equal(served(images), expected)
            except Exception as error:
                wrong.append(error)

    server = threading.Thread(target=serve)
    server.start()
    networks = [nn.Sequential(*[conv(4, 4, 3) for _ in range(9)], nn.ReLU()) for _ in range(40)]
    with ThreadPoolExecutor(4) as pool:
        fused_ones = list(pool.map(fuse, networks))
    ended.set()
    server.join()
    assert wrong == []
    assert not {*networks} & {*fused_ones}
    assert nn.Module.__call__ is call


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v3_small", "resnet18", "densenet121", "shufflenet_v2_x0_5", "mnasnet0_5",
        "regnet_y_400mf", "googlenet", "efficientnet_b0", "squeezenet1_1", "vgg11",
    ],
)  # fmt: skip
def test_fused_network_of_torchvision_gives_the_same_logits(name):
    network = trained(find_model(name).build(10))
    found = compare(network, some_images(3, 96))
    assert not [m for m in found.modules() if type(m) is nn.Conv2d]
