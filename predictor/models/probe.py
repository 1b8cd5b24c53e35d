"""A model of the operator's own is tried before it is served."""

from __future__ import annotations

import numpy as np

from predictor.errors import ModelError, PredictorError
from predictor.images.decoding import decode
from predictor.images.preprocessing import Pixels, Preprocessing
from predictor.models.scorer import Loaded, Logits
from predictor.resources import resource

SAMPLE = "static/samples/cat.jpg"
# Two answers to one photo may differ by this part of the largest output. Between batches of 1 and
# 3, six networks of torchvision differ by up to 5e-7 in float32 on the CPU. Not measured: other
# precisions on other processors, and GPUs, whose convolutions round to 10 bits (TF32).
EXACT, ROUNDED = 1e-4, 0.02
BATCHABLE = "Add to model.toml: batchable = false. Then each photo is scored alone."


def probe(loaded: Loaded, name: str) -> Logits:
    """Score black, white and a photo, singly and together; return ``(N, outputs)`` float32 logits.

    The photo is scored twice, and compared. Black and white are left out if their outputs are not
    finite, as of a network that divides by the contrast.

    Raises:
        ModelError: the model fails, or a photo's answer depends on the photos beside it.
    """
    scorer = loaded.scorer
    black: Pixels = np.zeros(scorer.preprocessing.shape, np.uint8)
    images = [black, black + np.uint8(255), _sample(scorer.preprocessing)]
    alone, again = _score(loaded, images, 1, name), _score(loaded, images[-1:], 1, name)
    finite: Logits = alone[np.isfinite(alone).all(1)]
    if not np.isfinite(alone[-1]).all():
        raise ModelError(
            f"The outputs of {name} for a photo contain NaN or infinity, in {loaded.precision}."
            " Check the weights and the input's mean and std, or set PREDICTOR_PRECISION=float32."
        )
    exact = (loaded.device, loaded.precision) == ("cpu", "float32")
    allowed = (EXACT if exact else ROUNDED) * np.abs(finite).max()
    if not _same(again, alone[-1:], allowed):
        raise ModelError(
            f"{name} ({loaded.weights}) answers the same photo differently each time, as with"
            " dropout in training mode. Its eval() must turn that off; call net.eval() before you"
            " save a program."
        )
    if (most := min(scorer.max_batch_size, len(images))) > 1:
        around = [*range(len(images)), 0]  # in twos, each photo has another one beside it
        together = _score(loaded, [images[index] for index in around], most, name)
        if not _same(together, alone[around], allowed):
            raise ModelError(f"{name} answers a photo differently beside others. {BATCHABLE}")
    return finite


def _score(loaded: Loaded, images: list[Pixels], size: int, name: str) -> Logits:
    """Score the images in batches of at most ``size``."""
    scorer, batches = loaded.scorer, range(0, len(images), size)
    try:
        return np.concatenate(
            [scorer.logits(images[at : at + size], scorer.lanes) for at in batches]
        )
    except PredictorError:
        raise
    except Exception as error:
        if size > 1:
            failed = f"{name} fails on several photos at once: {reason(error)} {BATCHABLE}"
        else:
            shape = " × ".join(map(str, images[0].shape))
            failed = f"{name} fails on a photo of {shape}: {reason(error)}"
        raise ModelError(failed) from error


def _same(one: Logits, other: Logits, allowed: float) -> bool:
    rows = np.isfinite(other).all(1)
    return one.shape == other.shape and np.allclose(one[rows], other[rows], 0, allowed)


def _sample(preprocessing: Preprocessing) -> Pixels:
    photo = decode(resource(SAMPLE).read_bytes(), 10**7)
    if preprocessing.resize == "none":
        photo = photo.resize(preprocessing.size[::-1])
    return preprocessing(photo)


def reason(error: Exception) -> str:
    """Return the line of an error that says what is wrong. TorchScript says it last."""
    lines = str(error).strip().splitlines() or [""]
    line = lines[-1 if "TorchScript" in lines[0] else 0]
    kind = f"{type(error).__name__}: "
    return f"{kind}{line.removeprefix(kind)[:300]}".rstrip(".: ") + "."
