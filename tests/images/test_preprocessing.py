import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import (
    CenterCrop,
    Compose,
    InterpolationMode,
    Normalize,
    Resize,
    ToTensor,
)

from predictor.images.preprocessing import MAX_ASPECT_RATIO, Preprocessing
from predictor.models.zoo import find_model


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    "size",
    [
        (500, 375),
        (375, 500),
        (224, 224),
        (255, 255),
        (256, 301),
        (31, 17),
        (1, 1),
        (4032, 3024),
        (255, 900),
    ],
)
@pytest.mark.parametrize("interpolation", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_pixels_equal_those_of_torchvision(size, interpolation):
    preprocess = Preprocessing(255, 224, interpolation, (0, 0, 0), (1, 1, 1))
    oracle = Compose([Resize(255, InterpolationMode[interpolation.name]), CenterCrop(224)])
    image = noise(*size)
    assert np.array_equal(preprocess(image), np.asarray(oracle(image)))


def test_pixels_are_a_contiguous_uint8_square():
    pixels = find_model("vgg16").preprocessing(noise(500, 375))
    assert (pixels.shape, pixels.dtype) == ((224, 224, 3), np.uint8)
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("size", [(1, 5_000_000), (5_000_000, 1), (3, 3 * MAX_ASPECT_RATIO + 1)])
def test_very_long_image_is_not_enlarged_first(size):
    assert find_model("vgg16").preprocessing(Image.new("RGB", size)).shape == (224, 224, 3)


def test_denormalised_tensor_equals_the_original_pixels():
    preprocess = find_model("vgg16").preprocessing
    pixels = preprocess(noise(500, 375))
    tensor = Compose([ToTensor(), Normalize(preprocess.mean, preprocess.std)])(pixels.copy())
    undone = preprocess.pixels(tensor[None].numpy())
    assert (undone.shape, undone.dtype) == ((1, 224, 224, 3), np.float32)
    assert np.abs(undone[0] - pixels).max() < 1e-4
