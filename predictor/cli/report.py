"""The report of an evaluation: text for the terminal, or a page."""

import base64
import io
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from predictor.cli import photos
from predictor.cli.evaluation import interval
from predictor.engine.classifier import Classifier
from predictor.errors import PredictorError
from predictor.resources import resource

SIDE = 160  # pixels of a small picture, at most


def render(template: str, classifier: Classifier, **values: Any) -> str:
    """Return a template's text. Only a page shows pictures, which are read again for it."""
    environment = Environment(
        loader=FileSystemLoader(resource("templates")), autoescape=select_autoescape(),
        undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    values["thumbnail"] = lambda file: _thumbnail(classifier, file)
    model = classifier.require_model()
    return environment.get_template(template).render(values, model=model, interval=interval)


def _thumbnail(classifier: Classifier, file: str) -> str | None:
    """Return what the model sees of a photo, as a data URL; None if it cannot be read any more."""
    preprocessing = classifier.require_model().scorer.preprocessing
    try:
        pixels = classifier.decode(photos.read(file), classifier.begin(None), preprocessing)
    except PredictorError:
        return None
    picture = preprocessing.picture(pixels)
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
