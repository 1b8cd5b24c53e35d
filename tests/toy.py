"""A toy model. The servers of ``faulty.py`` and ``toy_store.py`` import it: without pytest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pictures import COLOURS
from predictor.images.preprocessing import Preprocessing
from predictor.models.card import Card
from predictor.models.labels import Label
from predictor.models.scorer import LoadedModel, Logits


class ToyModel:
    """Tells red, green and blue apart by the mean of each channel: checkable by eye."""

    preprocessing = Preprocessing(
        size=(8, 8),
        resize=9,
        interpolation=Image.Resampling.BILINEAR,
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )

    lanes, max_batch_size, warm_up_sizes = 1, 8, {1, 8}
    explains = True

    def __init__(self) -> None:
        self.batches: list[int] = []

    def logits(self, images: Sequence[NDArray[np.uint8]], lanes: int) -> NDArray[np.float32]:
        self.batches.append(len(images))
        return np.stack(images).mean((1, 2)).astype(np.float32) / 25

    def explain(
        self,
        image: NDArray[np.uint8],
        evidence: Callable[[Logits], Logits],
        pause: Callable[[], None],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The heat of a class is its channel, averaged to 2 × 2."""
        pause()
        logits = self.logits([image], 1)[0]
        index = int(evidence(logits).argmax())
        return logits, image[..., index].reshape(2, 4, 2, 4).mean((1, 3)).astype(np.float32) / 255


class ToyInfo:
    name, weights, labels, notice, device = "toy", "toy.pth", "numbers", None, "cpu"
    classes = outputs = 3
    parameters, precision = 0, "float32"
    platform, backend = "pytorch_eager", "pytorch"

    def public(self) -> dict[str, Any]:
        return {"name": "toy", "weights": "toy.pth"}


LABELS = tuple(Label(f"n{i:08}", f"{name}_thing") for i, name in enumerate(COLOURS))


def toy_model(model: ToyModel | None = None) -> LoadedModel:
    card = Card("toy", "toy", ToyModel.preprocessing, LABELS)
    return LoadedModel(model or ToyModel(), ToyInfo(), card)  # type: ignore[arg-type]
