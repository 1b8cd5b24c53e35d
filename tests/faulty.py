"""An app whose model does what the photo says; for tests that start a real gunicorn.

``gunicorn --pythonpath tests faulty:app``: red, green and blue are classified; other colours are
faults.
"""

import time
from dataclasses import replace

import numpy as np

from app import create_app
from conftest import ToyModel, toy_model
from predictor.engine.classifier import Classifier
from predictor.models.spec import ModelInfo
from predictor.settings import Settings

SECONDS = 0.1  # of a forward pass: ten images a second
RAISES, NO_MEMORY, HANGS, DIES = (255, 255, 0), (0, 255, 255), (255, 0, 255), (255, 255, 255)


class FaultyModel(ToyModel):
    """A forward pass takes its time, and has no memory for more than two images."""

    max_batch_size, warm_up_sizes = 4, {1}

    def logits(self, images, lanes):
        """Do as the first image of each colour says."""
        colours = {tuple(np.asarray(image[4, 4]).tolist()) for image in images}
        if DIES in colours:
            raise SystemExit("the inference thread ends")
        if RAISES in colours:
            raise RuntimeError("a fault of the model")
        if NO_MEMORY in colours or len(images) > 2:
            raise MemoryError
        time.sleep(3600 if HANGS in colours else SECONDS)
        return super().logits(images, lanes)


def load(*_):
    """The toy, with the particulars that a start prints; after a while, as real ones."""
    time.sleep(1)
    info = ModelInfo("toy", "toy.pth", "cpu", "float32", threads=1, parameters=0, classes=3)
    return replace(toy_model(FaultyModel()), info=info)


settings = Settings.from_env()
app = create_app(settings, Classifier(settings, load))
