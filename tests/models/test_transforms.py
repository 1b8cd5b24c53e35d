import re

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from skimage import data
from torchvision import transforms as v1
from torchvision.transforms import InterpolationMode, v2

from predictor.errors import ModelError
from predictor.models.transforms import read_transform

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PHOTOS = [Image.fromarray(image) for image in (data.chelsea(), data.coffee(), data.rocket())]
# A tall, a small and a wide one.
PHOTOS += [PHOTOS[1].crop((200, 0, 320, 400)), PHOTOS[0].resize((40, 30))]
PHOTOS += [PHOTOS[2].crop((0, 100, 640, 180))]


def v2_tensor(*steps, scale=True):
    return v2.Compose([v2.ToImage(), *steps, v2.ToDtype(torch.float32, scale=scale)])


READ = {
    "shorter side and crop": [v1.Resize(256), v1.CenterCrop(224), v1.ToTensor()],
    "normalised": [v1.Resize(73), v1.CenterCrop(64), v1.ToTensor(), v1.Normalize(MEAN, STD)],
    "one mean for all channels": [v1.Resize((32, 32)), v1.ToTensor(), v1.Normalize(0.5, 0.25)],
    "a list of one mean": [v1.Resize((32, 32)), v1.ToTensor(), v1.Normalize((0.5,), (0.25,))],
    "both sides": [v1.Resize((48, 96), InterpolationMode.BICUBIC), v1.ToTensor()],
    "a side in a list": [v1.Resize([33]), v1.CenterCrop((32, 30)), v1.ToTensor()],
    "both sides and a crop": [v1.Resize((72, 80)), v1.CenterCrop((64, 63)), v1.ToTensor()],
    "both sides and their crop": [v1.Resize((64, 64)), v1.CenterCrop(64), v1.ToTensor()],
    "both sides and a larger crop": [v1.Resize((30, 41)), v1.CenterCrop(50), v1.ToTensor()],
    "a larger crop": [v1.Resize(50), v1.CenterCrop((73, 60)), v1.ToTensor()],
    "a crop of a tensor": [v1.Resize(50), v1.ToTensor(), v1.CenterCrop((73, 40))],
    "grey": [v1.Grayscale(), v1.Resize((28, 28)), v1.ToTensor(), v1.Normalize(0.13, 0.31)],
    "nearest": [v1.Resize((20, 20), InterpolationMode.NEAREST), v1.ToTensor()],
    "nearest-exact": [v1.Resize(20, InterpolationMode.NEAREST_EXACT), v1.CenterCrop(20),
                      v1.ToTensor()],
    "Pillow's number": [v2.Resize(20, 3), v2.CenterCrop(20), v1.ToTensor()],
    "not antialiased, which Pillow ignores": [v1.Resize((20, 20), antialias=False), v1.ToTensor()],
    "PILToTensor": [v1.Resize((20, 20)), v1.PILToTensor(), v1.ConvertImageDtype(torch.float32)],
    "converted twice": [v1.Resize((20, 20)), v1.ToTensor(), v1.ConvertImageDtype(torch.float32)],
    "v2": [v2.Resize(40), v2.CenterCrop(32), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
           v2.Normalize(MEAN, STD)],
    "v2 with bytes": [v2.Resize((32, 32)), v2.ToImage(), v2.ToDtype(torch.uint8, scale=True),
                      v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)],
    "on the scale 0 to 255": [v2.Resize((40, 30)), v2_tensor(scale=False),
                              v2.Normalize((103.9, 116.8, 123.7), (1, 1, 1))],
    "in containers": [v1.Compose([v1.Resize(40), torch.nn.Sequential(v1.CenterCrop(32))]),
                      v1.ToTensor()],
}  # fmt: skip


def values(preprocess, photo):
    """The tensor that a network gets: ``(C, H, W)``."""
    pixels = preprocess(photo)
    normalised = (pixels.astype(np.float32) - preprocess.offset) / preprocess.divisor
    return torch.from_numpy(normalised).permute(2, 0, 1)


@pytest.mark.filterwarnings("ignore:Anti-alias option")
@pytest.mark.parametrize("name", READ)
def test_transform_is_read_with_the_same_values(name):
    transform = v1.Compose(READ[name])
    preprocess = read_transform(transform)
    for photo in PHOTOS:
        torch.testing.assert_close(values(preprocess, photo), transform(photo), rtol=0, atol=2e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_image_resized_as_a_tensor_differs_by_rounding_only(interpolation):
    transform = v2_tensor(v2.Resize(72, interpolation), v2.CenterCrop(64))
    preprocess = read_transform(transform)
    for photo in PHOTOS:
        levels = (values(preprocess, photo) - transform(photo)).abs() * 255
        assert (levels.max() < 2.5, levels.mean() < 0.25) == (True, True)


@pytest.mark.parametrize("name", ["ResNet50_Weights.IMAGENET1K_V2", "ViT_L_16_Weights.DEFAULT"])
def test_preset_of_published_weights_is_read(name):
    transform = torchvision.models.get_weight(name).transforms()
    preprocess = read_transform(transform)
    for photo in PHOTOS:
        torch.testing.assert_close(values(preprocess, photo), transform(photo), rtol=0, atol=2e-5)


@pytest.mark.parametrize("options", [{"crop_mode": "squash", "crop_pct": 0.9}, {"crop_pct": 0.8}])
def test_transform_of_timm_is_read(options):
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install '.[timm]'")
    transform = timm.data.create_transform((3, 64, 64), mean=MEAN, std=STD, **options)
    preprocess = read_transform(transform)
    for photo in PHOTOS:
        torch.testing.assert_close(values(preprocess, photo), transform(photo), rtol=0, atol=2e-5)


class Resize(v1.Resize):
    """The user's own class of the same name."""


TENSOR = v1.ToTensor()
REFUSED = {
    "a random step": ([v1.Resize(9), v1.RandomHorizontalFlip(), TENSOR], "RandomHorizontalFlip(p="),
    "what to do about it": ([v1.RandomResizedCrop(9), TENSOR], "steps of the validation"),
    "a function": ([v1.Resize((9, 9)), lambda image: image, TENSOR], "<lambda>"),
    "an own class": ([Resize((9, 9)), TENSOR], "cannot be read"),
    "no Resize": ([TENSOR], "has the steps ToTensor()"),
    "CenterCrop alone": ([v1.CenterCrop(9), TENSOR], "CenterCrop(size=(9, 9)), ToTensor()"),
    "CenterCrop first": ([v1.CenterCrop(9), v1.Resize(9), TENSOR], "do not fit"),
    "CenterCrop twice": ([v1.Resize(9), v1.CenterCrop(9), v1.CenterCrop(8), TENSOR], "do not fit"),
    "one side without a crop": ([v1.Resize(9), TENSOR], "has Resize(size=9"),
    "a longest side": ([v1.Resize(9, max_size=20), v1.CenterCrop(9), TENSOR], "max_size"),
    "only a longest side": ([v2.Resize(None, max_size=20), v1.CenterCrop(9), TENSOR], "max_size"),
    "Resize twice": ([v1.Resize(9), v1.Resize((9, 9)), TENSOR], "do not fit"),
    "Resize of floats": ([TENSOR, v1.Resize((9, 9))], "ToTensor(), Resize(size=(9, 9)"),
    "not antialiased": ([v2_tensor(v2.Resize((9, 9), antialias=False))], "is not antialiased"),
    "a tensor's nearest": ([v2_tensor(v2.Resize((9, 9), "nearest"))], "Put it before ToImage"),
    "no tensor": ([v1.Resize((9, 9))], "has the steps Resize"),
    "no floats": ([v2.Resize((9, 9)), v2.ToImage()], "ToImage(), which do not fit"),
    "half precision": ([v2.Resize((9, 9)), v2.ToImage(), v2.ToDtype(torch.half, scale=True)],
                       "torch.float32"),
    "floats of a photo": ([v2.Resize((9, 9)), v2.ToDtype(torch.float32)], "do not fit"),
    "bytes of floats": ([v2.Resize((9, 9)), TENSOR, v2.ToDtype(torch.uint8)], "do not fit"),
    "Normalize before ToTensor": ([v1.Resize((9, 9)), v1.Normalize(MEAN, STD), TENSOR],
                                  "do not fit"),
    "a step after Normalize": ([v1.Resize((9, 9)), TENSOR, v1.Normalize(MEAN, STD),
                                v1.Normalize(MEAN, STD)], "do not fit"),
    "a crop after Normalize": ([v1.Resize((9, 9)), TENSOR, v1.Normalize(MEAN, STD),
                                v1.CenterCrop(8)], "do not fit"),
    "another number of means": ([v1.Resize((9, 9)), TENSOR, v1.Normalize((0, 0), (1, 1))],
                                "one finite number for each channel of RGB"),
    "a std of zero": ([v1.Resize((9, 9)), TENSOR, v1.Normalize(0.0, 0.0)], "above 0"),
    "grey after Resize": ([v1.Resize((9, 9)), v1.Grayscale(), TENSOR], "do not fit"),
    "grey of a tensor": ([v2.ToImage(), v2.Grayscale(1)], "do not fit"),
    "three channels of grey": ([v1.Grayscale(3), v1.Resize((9, 9)), TENSOR], "channels=3"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_other_transform_is_refused_in_words(name):
    steps, words = REFUSED[name]
    with pytest.raises(ModelError, match=re.escape(words)) as refusal:
        read_transform(v1.Compose(steps), "net.py: transform")
    assert str(refusal.value).startswith("net.py: transform ")
    assert "Accepted are Grayscale(1), Resize," in str(refusal.value)


def test_something_else_is_refused():
    with pytest.raises(ModelError, match="transform has the step 'resize', which cannot be read"):
        read_transform("resize")
