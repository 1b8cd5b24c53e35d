"""An app for tests of a store with a real gunicorn: a version's ``model.txt`` says how it behaves.

Start it with ``gunicorn --pythonpath tests toy_store:app``. The file has the index of the class
that the version answers for each photo; ``broken``: it cannot be loaded; ``raises``: it fails for
each photo; ``slow``: it is being loaded until there is a file ``.let`` beside it.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from predictor.errors import StartError
from predictor.models.scorer import ModelInfo
from predictor.settings import current_settings
from predictor.store import folder
from predictor.web import create_app
from toy import ToyModel, toy_model
from waiting import wait_until


class Constant(ToyModel):
    """Answers each photo with the same class."""

    def __init__(self, word):
        super().__init__()
        self.word = word

    def logits(self, images, lanes):
        """Return the class's logits; the warm-up's images are black."""
        if self.word == "raises" and any(image.any() for image in images):
            raise RuntimeError("a fault of the model")
        index = int(self.word) if self.word.isdecimal() else 0
        return np.tile(np.eye(3, dtype=np.float32)[index], (len(images), 1))


def load(settings, _cpus):
    """Load the toy model of a folder."""
    place = Path(settings.model)
    word = (place / "model.txt").read_text()
    if word == "broken":
        raise StartError(f"{place / 'model.txt'} is broken.")
    if word == "slow":
        wait_until((place / ".let").exists)
    counts = {"threads": 1, "parameters": 1, "classes": 3, "outputs": 3}
    info = ModelInfo(settings.served_name, "", "cpu", "float32", **counts, labels="numbers")
    return replace(toy_model(Constant(word)), info=info)


folder.load_model = load
app = create_app(current_settings())
