"""Compare a model that is served with its source's own Python pipeline, on real photographs.

An untrained network proves nothing as it is: all photographs fall into one class, and a wrong
preprocessing moves its probabilities by 0.0002. :func:`spread` makes its answers differ.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from predictor.images.preprocessing import UNIT_AND_SHIFT
from predictor.models.scorer import LoadedModel, Scorer

# In scikit-image's wheel, in the public domain.
NAMES = (
    "astronaut", "brick", "camera", "cell", "chelsea", "clock", "coffee", "coins", "colorwheel",
    "grass", "gravel", "hubble_deep_field", "immunohistochemistry", "moon", "page", "retina",
    "rocket", "text",
)  # fmt: skip
SIZES = range(1, 9)  # of the batches
CLASSES = 10  # at least so many are the best of a photograph


@functools.cache
def photographs() -> tuple[Image.Image, ...]:
    """20 RGB photographs of different sizes."""
    arrays = [getattr(skimage.data, name)() for name in NAMES]
    arrays += skimage.data.stereo_motorcycle()[:2]
    return tuple(Image.fromarray(array).convert("RGB") for array in arrays)


def prepared(prepare: Callable[[Image.Image], Tensor]) -> Tensor:
    """The photographs as a source's own pipeline prepares them: ``(20, C, H, W)``."""
    return torch.stack([prepare(photo) for photo in photographs()])


@torch.inference_mode()
def answers(network: nn.Module, batch: Tensor) -> NDArray[np.float32]:
    """The logits of a network in eval mode, one photograph at a time: ``(20, classes)``."""
    return np.concatenate([network.eval()(one[None]).float().numpy() for one in batch])


@torch.no_grad()
def spread(network: nn.Module, batch: Tensor) -> None:
    """Centre and scale the last layer: over the batch, each output has mean 0 and deviation 1."""
    last = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    logits = torch.from_numpy(answers(network, batch))
    mean, deviation = logits.mean(0), logits.std(0)
    if last.bias is None:
        last.bias = nn.Parameter(torch.zeros(len(last.weight)))
    last.bias.copy_((last.bias - mean) / deviation)
    last.weight.div_(deviation.reshape(-1, *[1] * (last.weight.ndim - 1)))


def assert_only_right_is_alike(
    model: LoadedModel, logits: NDArray[np.float32], names: Sequence[str], within: float = 1e-4
) -> None:
    """The model answers as the source's own pipeline, and would not with a small mistake in it.

    ``logits`` ``(20, classes)`` and class names are from the source's own pipeline.
    """
    assert_alike(model, logits, names, within)
    for mistaken in mistakes(model):
        with pytest.raises(AssertionError):
            assert_alike(mistaken, logits, names, within)


def assert_alike(
    model: LoadedModel, logits: NDArray[np.float32], names: Sequence[str], within: float
) -> None:
    """The same class, and logits within a part of the largest, in batches of 1 to 8."""
    best = logits.argmax(1)
    assert len(set(best)) >= CLASSES, "the photographs fall into too few classes to compare"
    pixels = [model.scorer.preprocessing(photo) for photo in photographs()]
    order = np.arange(sum(SIZES)) % len(pixels)
    for chosen in np.split(order, np.cumsum(SIZES)[:-1]):
        found = model.scorer.logits([pixels[index] for index in chosen], 1)
        difference = np.abs(found - logits[chosen]).max() / np.abs(logits).max()
        assert difference <= within, f"{difference} in a batch of {len(chosen)}"
        served = [model.labels[index].class_name for index in found.argmax(1)]
        assert served == [names[index] for index in best[chosen]]


def mistakes(model: LoadedModel) -> Iterator[LoadedModel]:
    """The same model with a mean that is off by 0.01, and with labels that are shifted by one."""
    yield replace(model, scorer=WrongMean(model.scorer))
    labels = model.labels[1:] + model.labels[:1]
    yield replace(model, card=replace(model.card, labels=labels))


class WrongMean:
    """A scorer with a mean that is off by 0.01."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer, self.preprocessing = scorer, scorer.preprocessing

    def logits(self, images: Sequence[NDArray[np.uint8]], lanes: int) -> NDArray[np.float32]:
        off = np.float32(0.01 * UNIT_AND_SHIFT[self.preprocessing.scale][0])
        return self._scorer.logits([image - off for image in images], lanes)
