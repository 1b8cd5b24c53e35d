import numpy as np
import pytest
from PIL import Image

from predictor.images.heatmap import MAX_PHOTO_SIDE, paint, shrink
from predictor.images.preprocessing import Box

GREY = (100, 100, 100)
WHOLE = Box(0, 0, 1, 1)


def painted(heat, box=WHOLE, size=(400, 200)):
    return paint(Image.new("RGB", size, GREY), np.array(heat, np.float32), box)


def test_cold_parts_are_unchanged_and_hot_parts_are_bright():
    picture = painted([[0, 1]])
    assert picture.getpixel((5, 100)) == GREY
    red, green, blue = picture.getpixel((395, 100))
    assert min(red, green) > 200 > blue > GREY[2]


def test_hotter_is_lighter():
    heat = np.linspace(0, 1, 32)
    picture = painted(heat[None], size=(320, 8)).convert("L")
    row = np.asarray(picture)[4, 160:].astype(int)
    assert (np.diff(row) >= -1).all()
    assert row[-1] > row[0] + 80


def test_parts_outside_the_box_are_dimmed():
    picture = painted([[0, 0]], Box(0.25, 0, 0.75, 1))
    assert picture.getpixel((200, 100)) == GREY
    assert picture.getpixel((50, 100)) == picture.getpixel((350, 100)) == (35, 35, 35)


def test_given_photo_is_not_changed():
    photo = Image.new("RGB", (400, 200), GREY)
    paint(photo, np.ones((1, 1), np.float32), WHOLE)
    assert photo.getcolors() == [(80_000, GREY)]


@pytest.mark.parametrize("size", [(30, 20), (1, 1024), (1024, 1), (1, 1)])
def test_picture_has_the_photos_size_even_if_the_box_is_a_line(size):
    middle = Box(0, 0.4999, 1, 0.5001)
    assert painted([[0, 1]], middle, size).size == size


@pytest.mark.parametrize(
    ("size", "shrunk"), [((400, 200), (400, 200)), ((4096, 2048), (MAX_PHOTO_SIDE, 512))]
)
def test_only_a_large_photo_is_shrunk(size, shrunk):
    assert shrink(Image.new("RGB", size)).size == shrunk
