import json
from dataclasses import replace

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

from predictor.errors import WrongSize
from predictor.images.preprocessing import MAX_ASPECT_RATIO, Interpolation, Preprocessing
from predictor.models.description import describe, input_of
from predictor.models.sources.torchvision import find_model

BILINEAR = Interpolation.BILINEAR
VGG16 = input_of(find_model("vgg16").said, {}, "vgg16")


def described(size=(224, 224), resize=255, channels="RGB", **options):
    """A description whose mean is 0 and whose std is 1."""
    zeros, ones = (0.0,) * len(channels), (1.0,) * len(channels)
    return Preprocessing(size, resize, BILINEAR, zeros, ones, channels, **options)


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
    preprocess = Preprocessing((224, 224), 255, interpolation, (0, 0, 0), (1, 1, 1))
    oracle = Compose([Resize(255, InterpolationMode[interpolation.name]), CenterCrop(224)])
    image = noise(*size)
    assert np.array_equal(preprocess(image), np.asarray(oracle(image)))


def test_pixels_are_a_contiguous_uint8_square():
    pixels = VGG16(noise(500, 375))
    assert (pixels.shape, pixels.dtype) == ((224, 224, 3), np.uint8)
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("size", [(1, 5_000_000), (5_000_000, 1), (3, 3 * MAX_ASPECT_RATIO + 1)])
def test_very_long_image_is_not_enlarged_first(size):
    assert VGG16(Image.new("RGB", size)).shape == (224, 224, 3)


@pytest.mark.parametrize("resize", [24, (40, 40), "squash", "pad"])
@pytest.mark.parametrize("size", [(32, 32), (16, 64), (64, 16)])
@pytest.mark.parametrize("photo", [(1, 3_000_000), (3_000_000, 1)])
def test_very_long_image_is_cropped_by_every_rule(photo, size, resize):
    preprocess = described(size, resize)
    assert preprocess(Image.new("RGB", photo)).shape == (*size, 3)
    box = preprocess.visible_box(photo)
    assert min(box.right - box.left, box.bottom - box.top) < 0.01


def test_long_image_is_whole_if_the_network_takes_long_images():
    line = noise(800, 32)
    assert np.array_equal(described((32, 800), "squash")(line), np.asarray(line))
    assert np.array_equal(described((32, 800), 32)(line), np.asarray(line))


@pytest.mark.parametrize("resize", ["squash", "pad"])
def test_square_photo_is_whole_if_the_network_takes_long_images(resize):
    box = described((4, 100), resize).visible_box((90, 90))
    assert (box.left <= 0, box.top, box.right >= 1, box.bottom) == (True, 0, True, 1)


def test_fixed_size_accepts_only_this_size():
    preprocess = described((20, 30), "none")
    photo = noise(30, 20)
    assert np.array_equal(preprocess(photo), np.asarray(photo))
    with pytest.raises(WrongSize, match="20 × 30 pixels; the model takes 30 × 20 only"):
        preprocess(noise(20, 30))


def test_padding_is_black_and_the_photo_is_in_its_middle():
    white = Image.new("RGB", (100, 50), "white")
    rows = described((40, 40), "pad")(white).mean((1, 2))
    assert rows.tolist() == [0] * 10 + [255] * 20 + [0] * 10


def test_padding_is_black_for_a_photo_in_the_colours_of_print():
    ink = Image.new("CMYK", (100, 50))
    assert described((40, 40), "pad")(ink)[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("size", "resize", "box"),
    [
        ((40, 40), "squash", (0, 0, 1, 1)),
        ((20, 40), "none", (0, 0, 1, 1)),
        ((20, 20), (40, 24), (1 / 12, 0.25, 11 / 12, 0.75)),
        ((40, 40), "pad", (0, -0.5, 1, 1.5)),
        ((20, 40), "pad", (0, 0, 1, 1)),
        ((20, 60), "pad", (-0.25, 0, 1.25, 1)),
        ((10, 20), 20, (0.25, 0.25, 0.75, 0.75)),
        ((40, 20), 20, (0.25, -0.5, 0.75, 1.5)),
    ],
)
def test_box_is_what_the_model_sees_of_a_photo_twice_as_wide_as_high(size, resize, box):
    assert described(size, resize).visible_box((40, 20)) == pytest.approx(box)


@pytest.mark.parametrize(
    ("scale", "black", "white"), [("0..1", 0, 1), ("-1..1", -1, 1), ("0..255", 0, 255)]
)
def test_scale_is_the_range_that_mean_and_std_are_on(scale, black, white):
    preprocess = Preprocessing((1, 1), 1, BILINEAR, (0.5,), (2.0,), "L", scale)
    normalised = (np.array([0, 255]) - preprocess.offset) / preprocess.divisor
    assert normalised == pytest.approx([(black - 0.5) / 2, (white - 0.5) / 2])


@pytest.mark.parametrize(
    ("channels", "pixel"),
    [("RGB", [250, 20, 10]), ("BGR", [10, 20, 250]), ("L", [88]), ("RGBA", [250, 20, 10, 255])],
)
def test_channels_have_their_order(channels, pixel):
    preprocess = described((4, 6), 4, channels)
    pixels = preprocess(Image.new("RGB", (6, 4), (250, 20, 10)))
    assert (pixels.shape, pixels.flags.c_contiguous) == ((4, 6, len(pixel)), True)
    assert pixels[0, 0].tolist() == pixel
    shown = (88,) * 3 if channels == "L" else (250, 20, 10)
    assert preprocess.picture(pixels).getpixel((0, 0)) == shown


@pytest.mark.parametrize("resize", ["pad", 32, (40, 50)])
def test_description_survives_json(resize):
    preprocess = Preprocessing((32, 48), resize, BILINEAR, (1.5,), (2.5,), "L", "0..255")
    written = json.loads(json.dumps(preprocess.as_json()))
    assert written["interpolation"] == "bilinear"
    assert input_of(describe({"input": written}, "net.onnx"), {}, "net") == preprocess


BAD = {
    "one mean for three channels": ({"mean": (0.5,)}, "one finite number for each channel of RGB"),
    "three means for one channel": ({"channels": "L"}, "each channel of L"),
    "a mean that is infinite": ({"mean": (0, 0, float("inf"))}, "one finite number"),
    "a std of zero": ({"std": (1, 1, 0)}, "above 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_description_is_refused_in_words(name):
    change, words = BAD[name]
    with pytest.raises(ValueError, match=words):
        replace(described(), **change)


def test_one_line_describes_it_for_people():
    assert described((32, 48), "pad").describe() == (
        "48 × 32 RGB, resized to fit, padded with black (bilinear); 0..1, mean 0, 0, 0, std 1, 1, 1"
    )
    assert "shorter side resized to 255, centre cut out" in described().describe()


def test_denormalised_tensor_equals_the_original_pixels():
    preprocess = VGG16
    pixels = preprocess(noise(500, 375))
    tensor = Compose([ToTensor(), Normalize(preprocess.mean, preprocess.std)])(pixels.copy())
    undone = preprocess.pixels(tensor[None].numpy())
    assert (undone.shape, undone.dtype) == ((1, 224, 224, 3), np.float32)
    assert np.abs(undone[0] - pixels).max() < 1e-4
