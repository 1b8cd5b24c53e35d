"""Explanations by a real network of real photographs."""

from functools import partial

import numpy as np
import pytest
from PIL import Image
from skimage import data

from pictures import encode
from predictor.engine.classifier import Classifier
from predictor.engine.explainer import Explainer
from predictor.settings import Settings

TIGER_CAT, EGYPTIAN_CAT, ESPRESSO = 282, 285, 967


@pytest.fixture(scope="module")
def lite0():
    classifier = Classifier(Settings(model="efficientnet_lite0"))
    classifier.start()
    classifier.loading.result(60)
    yield classifier
    classifier.close()


@pytest.fixture(scope="module")
def real(lite0):
    return partial(Explainer(lite0.process, lite0.settings).explain, lite0)


@pytest.mark.slow
def test_an_explanation_has_the_networks_own_probability(lite0, real):
    photo = encode(Image.fromarray(data.chelsea()))
    (predicted,) = lite0.classify([photo], top_k=5)
    for prediction in predicted:
        explained = real(photo, prediction.class_index).prediction
        assert explained.probability == pytest.approx(prediction.probability, abs=1e-5)


def mean_heat(explanation, left, top, right, bottom):
    """The mean inside a box, in the photo's pixels, and in the rest of what the model sees."""
    width, height = explanation.photo.size
    heat = np.asarray(Image.fromarray(explanation.heat).resize((224, 224)))
    x = np.linspace(explanation.box.left, explanation.box.right, 224) * width
    y = np.linspace(explanation.box.top, explanation.box.bottom, 224) * height
    inside = ((x >= left) & (x < right)) & ((y >= top) & (y < bottom))[:, None]
    return heat[inside].mean(), heat[~inside].mean()


@pytest.mark.slow
def test_the_heat_follows_the_cat_to_each_corner(real):
    cat = Image.fromarray(data.chelsea())
    face = np.array((90, 10, 350, 275))
    for corner in ((0, 0), (449, 0), (0, 400), (449, 400)):
        room = Image.new("RGB", (900, 700), (200, 200, 200))
        room.paste(cat, corner)
        explanation = real(encode(room), EGYPTIAN_CAT)
        inside, outside = mean_heat(explanation, *(face + corner * 2))
        assert inside > 3 * outside


@pytest.mark.slow
def test_the_heat_of_a_cat_is_on_its_face(real):
    explanation = real(encode(Image.fromarray(data.chelsea())), TIGER_CAT)
    inside, outside = mean_heat(explanation, 90, 30, 350, 275)
    assert inside > 1.4 * outside


@pytest.mark.slow
def test_the_heat_of_each_class_is_on_its_own_object(real):
    """A cat above a cup of coffee."""
    both = Image.new("RGB", (600, 600))
    both.paste(Image.fromarray(data.chelsea()).resize((600, 300)), (0, 0))
    both.paste(Image.fromarray(data.coffee()).resize((600, 300)), (0, 300))
    cat, coffee = (real(encode(both), index) for index in (EGYPTIAN_CAT, ESPRESSO))
    above, below = mean_heat(cat, 0, 0, 600, 300)
    assert above > 3 * below
    above, below = mean_heat(coffee, 0, 0, 600, 300)
    assert below > 3 * above
