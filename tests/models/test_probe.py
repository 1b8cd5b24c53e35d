"""Networks of people who do not write for a server."""

import numpy as np
import pytest
import torch
from torch import nn

from predictor.errors import ModelError
from predictor.images.preprocessing import Interpolation, Preprocessing
from predictor.models.network import Model
from predictor.models.probe import probe
from predictor.models.scorer import Loaded

INPUT = Preprocessing((16, 16), 16, Interpolation.BILINEAR, (0.5,) * 3, (0.5,) * 3)


class Net(nn.Module):
    """Three logits: the mean of each channel, from -1 to 1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, images):
        """``(N, 3, H, W)`` to ``(N, 3)``."""
        return images.mean((2, 3)) * self.weight


class Branches(Net):
    def forward(self, images):
        return super().forward(images if images.mean() > 0.1 else 2 * images + 1)


class OnlyOne(Net):
    def forward(self, images):
        return super().forward(images if images.mean((1, 2, 3)) > 0 else -images)


class TrainedBatchNorm(Net):
    def forward(self, images):
        return super().forward(nn.functional.batch_norm(images, None, None, training=True) + images)


class FirstOnly(Net):
    def forward(self, images):
        return super().forward(images + images[:1].std())


class AlwaysDropout(Net):
    def forward(self, images):
        return nn.functional.dropout(super().forward(images), training=True)


class Fails(Net):
    def forward(self, images):
        return images.flatten(1) @ torch.ones(5, 3)


class Wrong(Net):
    def forward(self, images):
        return images, images


class NotANumber(Net):
    def forward(self, images):
        return super().forward(images) * float("nan")


class ByContrast(Net):
    def forward(self, images):
        return super().forward(images) / images.std((1, 2, 3))[:, None]


class Squeezed(Net):
    def forward(self, images):
        return super().forward(images)[:, :1].squeeze()


def tried(network, batch=4, dtype=torch.float32, input=INPUT, kind=Model):
    network = network.eval().to(dtype)
    scorer = kind(network, input, threads=1, lanes=1, max_batch_size=batch)
    precision = str(dtype).removeprefix("torch.")
    return probe(Loaded(scorer, "net.pth", "cpu", precision, threads=1, parameters=1), "net")


@pytest.mark.parametrize("batch", [1, 2, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sound_network_is_scored_on_black_white_and_a_photo(batch, dtype):
    logits = tried(Net(), batch, dtype)
    assert logits.shape == (3, 3)
    assert logits[0].tolist() == [-1] * 3
    assert logits[1].tolist() == [1] * 3
    assert np.abs(logits[2]).max() < 0.9


@pytest.mark.parametrize("network", [Branches, OnlyOne, TrainedBatchNorm, FirstOnly])
@pytest.mark.parametrize("batch", [2, 8])
def test_answers_that_depend_on_other_photos_stop_the_start(network, batch):
    with pytest.raises(ModelError, match=r"net .*Add to model\.toml: batchable = false"):
        tried(network(), batch)


@pytest.mark.parametrize("network", [Branches, OnlyOne, TrainedBatchNorm, FirstOnly])
def test_photos_that_are_scored_alone_need_not_agree(network):
    assert tried(network(), 1).shape == (3, 3)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (AlwaysDropout, "differently each time"),
        (Fails, "fails on a photo of 16 × 16 × 3: RuntimeError: .*mat1 and mat2"),
        (Wrong, "select"),
        (NotANumber, "NaN or infinity, in float32"),
    ],
)
@pytest.mark.parametrize("batch", [1, 8])
def test_a_network_that_cannot_be_served_stops_the_start(network, message, batch):
    with pytest.raises(ModelError, match=message):
        tried(network(), batch)


def test_a_network_that_divides_by_the_contrast_is_served():
    assert tried(ByContrast()).shape == (1, 3)


def test_one_squeezed_logit_is_one_output():
    assert tried(Squeezed()).shape == (3, 1)


@pytest.mark.parametrize(
    ("resize", "channels"), [("none", "RGB"), ("pad", "BGR"), ("squash", "RGBA"), (20, "L")]
)
def test_the_probe_has_the_models_own_input(resize, channels):
    values = (0.5,) * len(channels)
    input = Preprocessing((10, 20), resize, Interpolation.BILINEAR, values, values, channels)
    assert tried(Net(), input=input).shape == (3, len(channels))


@pytest.mark.parametrize(
    ("batch", "batches"),
    [(1, [1] * 4), (2, [1] * 4 + [2] * 2), (3, [1] * 4 + [3, 1]), (9, [1] * 4 + [3, 1])],
)
def test_no_batch_of_the_probe_is_larger_than_the_model_takes(batch, batches):
    seen = []

    class Counted(Model):
        def logits(self, images, lanes=1):
            seen.append(len(images))
            return super().logits(images, lanes)

    tried(Net(), batch, kind=Counted)
    assert seen == batches
