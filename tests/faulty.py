"""An app for tests with a real gunicorn: the colour of the photo selects how its model fails.

Start it with ``gunicorn --pythonpath tests faulty:app``. It classifies red, green and blue; other
colours cause faults. ``FAULTY_HANG_S`` is the number of seconds after which a batch counts as
hanging, and ``FAULTY_LOAD_S`` the number that loading takes. With ``FAULTLESS`` it has no faults,
and takes no time.
"""

import os
import time
from dataclasses import replace

import numpy as np

from predictor.engine import classifier
from predictor.models.scorer import ModelInfo
from predictor.settings import current_settings
from predictor.store.single import single
from predictor.web import create_app
from toy import ToyModel, toy_model

SECONDS = 0.1  # for each forward pass
RAISES, NO_MEMORY, HANGS, DIES = (255, 255, 0), (0, 255, 255), (255, 0, 255), (255, 255, 255)


class FaultyModel(ToyModel):
    """Takes ``SECONDS`` for each forward pass, and has memory for two images."""

    max_batch_size, warm_up_sizes = 4, {1}

    def logits(self, images, lanes):
        """Cause the fault of the worst colour in the batch, or classify the images."""
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
    """Load the toy model, with the facts that the start prints."""
    time.sleep(float(os.environ.get("FAULTY_LOAD_S", 1)))
    counts = {"threads": 1, "parameters": 1, "classes": 3, "outputs": 3}
    info = ModelInfo("toy", "toy.pth", "cpu", "float32", **counts, labels="numbers")
    model = ToyModel() if "FAULTLESS" in os.environ else FaultyModel()
    return replace(toy_model(model), info=info)


classifier.HANG_S = float(os.environ.get("FAULTY_HANG_S", classifier.HANG_S))
settings = current_settings()
app = create_app(settings, single(settings, classifier.Classifier(settings, load)))
