import numpy as np
import pytest
from PIL import Image

from predictor.engine.explainer import Box, Explanation
from predictor.engine.ranking import Prediction
from predictor.images.heatmap import paint

GREY = (100, 100, 100)
WHOLE = Box(0, 0, 1, 1)


def explanation(heat, box=WHOLE, size=(400, 200)):
    photo = Image.new("RGB", size, GREY)
    prediction = Prediction(0, "n0", "thing", 1.0)
    return Explanation(prediction, np.array(heat, np.float32), box, photo)


def test_where_it_is_cold_the_photo_shows_as_it_is_and_where_it_is_hot_it_glows():
    picture = paint(explanation([[0, 1]]))
    assert picture.getpixel((5, 100)) == GREY
    red, green, blue = picture.getpixel((395, 100))
    assert min(red, green) > 200 > blue > GREY[2]


def test_hotter_is_lighter():
    heat = np.linspace(0, 1, 32, dtype=np.float32)
    picture = paint(explanation(heat[None], size=(320, 8))).convert("L")
    row = np.asarray(picture)[4, 160:].astype(int)
    assert (np.diff(row) >= -1).all()
    assert row[-1] > row[0] + 80


def test_what_the_model_does_not_see_is_dimmed():
    picture = paint(explanation([[0, 0]], Box(0.25, 0, 0.75, 1)))
    assert picture.getpixel((200, 100)) == GREY
    assert picture.getpixel((50, 100)) == picture.getpixel((350, 100)) == (35, 35, 35)


def test_the_photo_itself_is_not_painted_on():
    given = explanation([[1]])
    paint(given)
    assert given.photo.getpixel((200, 100)) == GREY


@pytest.mark.parametrize("size", [(30, 20), (1, 1024), (1024, 1), (1, 1)])
def test_the_picture_is_as_large_as_the_photo_also_where_the_heat_is_a_line(size):
    middle = Box(0, 0.4999, 1, 0.5001)
    assert paint(explanation([[0, 1]], middle, size)).size == size
