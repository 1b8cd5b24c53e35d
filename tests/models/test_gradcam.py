"""Compares Grad-CAM with its definition, on networks of many kinds."""

from functools import partial

import pytest
import torch
from torch import nn

from predictor.errors import NotExplainable
from predictor.models.building import build_random
from predictor.models.fused_conv import FusedConv
from predictor.models.fusion import fuse
from predictor.models.gradcam import GradCAM, last_feature_maps, twin
from predictor.models.outputs import Output
from predictor.models.sources.torchvision import find_model

LAST = {
    "vgg16": "features.29",
    "alexnet": "features.11",
    "resnet18": "layer4",
    "densenet121": "features",
    "squeezenet1_1": "classifier.2",
    "googlenet": "inception5b",
    "mobilenet_v3_small": "features",
    "efficientnet_lite0": "_swish",
    "swin_t": "permute",
}
QUICK = {"squeezenet1_1"}


def no_pause():
    pass


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in LAST],
)
def named(request):
    spec = find_model(request.param)
    return request.param, build_random(spec.build, 1000)


def of_class(index):
    return partial(Output().evidence, class_index=index)


def some_images(count=1, side=224):
    return torch.randn((count, 3, side, side), generator=torch.Generator().manual_seed(3))


def by_definition(network, layer, batch, class_index):
    """Grad-CAM by the gradient of the whole network, without the package's code."""
    kept = []

    def keep(_module, _inputs, output):
        kept.append(output.clone())
        return kept[-1].clone()  # DenseNet's next layer works in place

    handle = layer.register_forward_hook(keep)
    logits = network(batch)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[0, class_index], kept[-1])
    weights = gradient[0].mean((1, 2))
    heat = torch.einsum("c,chw->hw", weights, kept[-1][0]).clamp(min=0)
    return heat.detach() / heat.max()


def test_heat_equals_the_papers_definition(named):
    name, network = named
    batch = some_images()
    layer = network.get_submodule(LAST[name])
    with torch.no_grad():
        expected_logits = network(batch)
    class_index = next(
        i for i in range(50) if by_definition(network, layer, batch, i).isfinite().all()
    )
    expected = by_definition(network, layer, batch, class_index)
    served = fuse(network)  # its fused operators have no gradient
    logits, heat = GradCAM(served)(batch, of_class(class_index), no_pause)
    assert heat.max() == 1
    assert torch.allclose(heat, expected, atol=1e-3)
    assert torch.allclose(logits, expected_logits, atol=1e-3)


def test_best_class_is_explained_by_default(named):
    _, network = named
    explain = GradCAM(network)
    logits, heat = explain(some_images(), of_class(None), no_pause)
    assert torch.equal(heat, explain(some_images(), of_class(int(logits.argmax())), no_pause)[1])


@pytest.mark.slow
def test_vision_transformer_is_not_explainable():
    network = build_random(find_model("vit_b_32").build, 10)
    explain, asked = GradCAM(network), []
    with pytest.raises(NotExplainable, match="feature maps"):
        explain(some_images(), of_class(0), no_pause)
    with pytest.raises(NotExplainable):
        explain(some_images(), of_class(0), lambda: asked.append(1))
    assert asked == []  # the network is searched only once


def test_feature_maps_are_taken_before_pooling():
    convolution = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2))
    network = nn.Sequential(convolution, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    assert last_feature_maps(network, some_images(side=16)) == (convolution[1], 1)


class Twice(nn.Module):
    """Calls one activation module twice, as EfficientNet-Lite0 does."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.activation, self.head = nn.ReLU6(), nn.Linear(4 * 16, 3)

    def forward(self, images):
        maps = self.activation(self.second(self.activation(self.first(images))))
        return self.head(maps.flatten(1))


def test_last_call_of_a_module_used_twice_counts():
    network = Twice().eval()
    assert last_feature_maps(network, some_images(side=8)) == (network.activation, 2)
    graded = []
    network.second.register_forward_hook(lambda *_: graded.append(torch.is_grad_enabled()))
    explain = GradCAM(network)
    assert explain(some_images(side=8), of_class(0), no_pause)[1].shape == (4, 4)
    assert graded == [False, False]  # once for the search and once for the explanation


class Small(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
        self.eval()


def test_heat_without_evidence_is_zero_everywhere():
    network = Small()
    nn.init.constant_(network[3].weight, -1.0)
    _, heat = GradCAM(network)(some_images(side=8), of_class(0), no_pause)
    assert torch.equal(heat, torch.zeros(6, 6))


def test_twin_shares_the_weights_and_not_the_hooks():
    network = fuse(Small())
    network(some_images(side=8))
    other = twin(network)
    convolutions = [
        next(m for m in one.modules() if isinstance(m, nn.Conv2d | FusedConv))
        for one in (network, other)
    ]
    assert convolutions[0].weight is convolutions[1].weight
    assert convolutions[0] is not convolutions[1]
    GradCAM(network)
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_pause_is_called_before_each_layer_and_can_end_it():
    explain, asked = GradCAM(Small()), []
    explain(some_images(side=8), of_class(0), no_pause)
    explain(some_images(side=8), of_class(0), lambda: asked.append(1))
    assert len(asked) == 4

    def refuse():
        raise TimeoutError

    with pytest.raises(TimeoutError):
        explain(some_images(side=8), of_class(0), refuse)
    assert torch.is_grad_enabled()
    assert explain(some_images(side=8), of_class(0), no_pause)[1].shape == (6, 6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_heat_is_float32_in_every_precision(dtype):
    network = Small().to(dtype)
    logits, heat = GradCAM(network)(some_images(side=8).to(dtype), of_class(0), no_pause)
    assert (logits.dtype, heat.dtype) == (dtype, torch.float32)


def test_class_0_of_one_logit_is_explained_by_the_evidence_against_class_1():
    """By a network of two logits, of which the first is the negative of the one logit."""
    one, two = Small(), Small()
    one[3] = nn.Linear(4 * 36, 1)
    two[0] = one[0]
    two[3].weight.data = torch.cat((-one[3].weight, one[3].weight, one[3].weight)).detach()
    heats = {}
    for index in (0, 1):
        _, heats[index] = GradCAM(one)(some_images(side=8), of_class(index), no_pause)
        _, expected = GradCAM(two)(some_images(side=8), of_class(index), no_pause)
        assert torch.allclose(heats[index], expected, atol=1e-5)
    assert not torch.allclose(heats[0], heats[1], atol=0.1)
