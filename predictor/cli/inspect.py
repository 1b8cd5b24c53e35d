"""``predictor inspect``: what would be served, who says so, and what it answers for a photo."""

import argparse
import json
import sys
from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from predictor.cli import photos
from predictor.cli.output import table
from predictor.cli.report import render
from predictor.engine.call import all_or_error
from predictor.engine.classifier import Classifier
from predictor.engine.ranking import rank
from predictor.errors import PredictorError
from predictor.images.preprocessing import Pixels, Preprocessing
from predictor.models.card import Card
from predictor.models.scorer import Logits
from predictor.resources import resource

TOP = 5
FEW = 10  # classes: by chance, one of so many may win for several pictures
ALIKE = 0.02  # largest difference of two probabilities


def run(options: argparse.Namespace) -> int:
    """Print what would be served. Return the exit status."""
    return photos.exit_status(partial(_run, options))


def _run(options: argparse.Namespace) -> int:
    if (classifier := photos.load()) is None:
        return 2
    card = classifier.require_model().card
    if options.json:
        print(json.dumps(card.as_json(), indent=2, ensure_ascii=False))
    else:
        print(render("inspect.txt", classifier))
    name = options.photo or str(resource("static") / "samples" / "espresso.jpg")
    try:
        pixels = _seen(classifier, name, is_sample=not options.photo)
        answer, warnings = _answer(card, classifier, pixels), list(doubts(card, classifier, pixels))
    except PredictorError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    if options.picture:
        card.input.picture(pixels).save(options.picture, "PNG")
    if not options.json:
        print(f"{name}\n{answer}", end="")
    for warning in [*scale_doubts(card.input), *warnings]:
        print(f"WARNING: {warning}", file=sys.stderr)
    return 0


def _seen(classifier: Classifier, name: str, is_sample: bool) -> NDArray[np.uint8]:
    """Return the pixels that the model sees of a photo. The sample fits each model."""
    prepare = classifier.require_model().card.input
    size = prepare.size[::-1] if is_sample and prepare.resize == "none" else None
    return classifier.decode(
        photos.read(name), classifier.begin(None),
        lambda image: prepare(image.resize(size) if size else image),
    )  # fmt: skip


def _answer(card: Card, classifier: Classifier, pixels: Pixels) -> str:
    """Return the best classes in lines, and for a photo in colours, what its order changes."""
    text = table(0, "", rank(_logits(classifier, pixels), card, TOP))
    if len(card.input.channels) == 3:
        (best,) = rank(_logits(classifier, np.ascontiguousarray(pixels[..., ::-1])), card, 1)
        text += f"If red and blue change places: {best.probability:.1%}  {best.class_name}\n"
    return text


def _logits(classifier: Classifier, pixels: Pixels) -> Logits:
    return all_or_error(classifier.logits([pixels]))[0]


def scale_doubts(input: Preprocessing) -> Iterator[str]:
    """Yield what shows that mean and std may be on another scale than ``input.scale``."""
    black, white = ((value - input.offset) / input.divisor for value in (0, 255))
    furthest, least = np.abs([black, white]).max(), (white - black).min()
    question = f"Are input.mean and input.std on the scale {input.scale}?"
    if furthest > (300 if input.scale == "0..255" else 10):
        yield f"Normalised pixels reach {furthest:,.0f}; most networks take -3 to 3. {question}"
    if least < 0.2:
        yield f"Normalised, black and white differ by only {least:.3f}. {question}"


def doubts(card: Card, classifier: Classifier, photo: Pixels) -> Iterator[str]:
    """Yield what shows that the weights or the preprocessing may be wrong."""
    pictures = np.zeros_like(photo), np.full_like(photo, 255), photo
    found = np.stack(
        [card.output.probabilities(_logits(classifier, picture)) for picture in pictures]
    )
    best = set(found.argmax(1).tolist())
    if len(best) == 1 and (len(card.labels) > FEW or np.ptp(found, axis=0).max() < ALIKE):
        name = card.labels[best.pop()].class_name
        yield (
            f"{name} wins for a black picture, a white one and the photo alike. The weights may be"
            " untrained or belong to another network, or mean and std may be wrong."
        )
