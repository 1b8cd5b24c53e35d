"""Photographs, prepared by us and by the pipelines that models are trained with."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torchvision import transforms as T

from pictures import encode
from predictor.images.decoding import decode
from predictor.images.preprocessing import Interpolation, Preprocessing

NAMES = ("chelsea", "coffee", "rocket", "astronaut", "camera")  # all but one are not square
PHOTOS = [Image.fromarray(getattr(data, name)()).convert("RGB") for name in NAMES]
TALL, WIDE = PHOTOS[1].crop((200, 0, 333, 400)), PHOTOS[2].crop((0, 100, 640, 199))
PHOTOS += [TALL, WIDE, TALL.resize((33, 47)), WIDE.resize((17, 5))]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalised(preprocess: Preprocessing, photo: Image.Image) -> torch.Tensor:
    """What our network gets of a photo: ``(C, height, width)`` float32."""
    if photo.mode != "RGB":
        photo = decode(encode(photo), 50_000_000, alpha=True)
    pixels = preprocess(photo).astype(np.float32)
    return torch.from_numpy((pixels - preprocess.offset) / preprocess.divisor).permute(2, 0, 1)


def expect_equal(preprocess, pipeline, photos=PHOTOS, atol=2e-6):
    for photo in photos:
        ours, expected = normalised(preprocess, photo), pipeline(photo)
        assert ours.shape == expected.shape
        assert float((ours - expected).abs().max()) <= atol


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest", "lanczos"])
@pytest.mark.parametrize(
    ("resize", "size"),
    [
        (256, (224, 224)),
        (73, (64, 65)),
        (65, (64, 31)),
        (50, (73, 60)),
        (61, (61, 128)),
        ((100, 71), (90, 70)),
        ((41, 50), (60, 45)),
        ("squash", (160, 97)),
    ],
)
def test_prepared_as_by_torchvision(resize, size, interpolation):
    filter_ = T.InterpolationMode(interpolation)
    steps = [T.Resize(size if resize == "squash" else resize, filter_), T.CenterCrop(size)]
    pipeline = T.Compose([*steps, T.ToTensor(), T.Normalize(MEAN, STD)])
    expect_equal(Preprocessing(size, resize, Interpolation[filter_.name], MEAN, STD), pipeline)


def test_grey_is_made_before_resizing_as_by_torchvision():
    pipeline = T.Compose(
        [T.Grayscale(), T.Resize((28, 28)), T.ToTensor(), T.Normalize(0.1307, 0.3081)]
    )
    preprocess = Preprocessing(
        (28, 28), "squash", Interpolation.BILINEAR, (0.1307,), (0.3081,), "L"
    )
    expect_equal(preprocess, pipeline)
    expect_equal(preprocess, lambda photo: pipeline(photo.convert("L")))


def test_alpha_is_kept_as_by_torchvision():
    photos = [photo.copy() for photo in PHOTOS]
    for photo in photos[1:]:  # the first is opaque
        ramp = Image.linear_gradient("L").resize(photo.size)
        photo.putalpha(ramp)
    photos.append(photos[1].resize((50, 40)).quantize(64))
    pipeline = T.Compose([T.Resize(70), T.CenterCrop((64, 80)), T.ToTensor()])
    zeros, ones = (0.0,) * 4, (1.0,) * 4
    preprocess = Preprocessing((64, 80), 70, Interpolation.BILINEAR, zeros, ones, "RGBA")
    expect_equal(preprocess, lambda photo: pipeline(photo.convert("RGBA")), photos)


def test_letterbox_is_on_black():
    """timm's border mode pads with the mean, so a mean of 0 is black."""
    preprocess = Preprocessing((97, 64), "pad", Interpolation.BICUBIC, MEAN, STD)
    for photo in PHOTOS:
        pixels = preprocess(photo)
        scale = max(photo.height / 97, photo.width / 64)
        height, width = (max(1, round(side / scale)) for side in photo.size[::-1])
        top, left = (97 - height) // 2, (64 - width) // 2
        expected = np.zeros((97, 64, 3), np.uint8)
        expected[top : top + height, left : left + width] = photo.resize(
            (width, height), Image.Resampling.BICUBIC
        )
        assert np.array_equal(pixels, expected)


KERAS = {  # keras.applications.imagenet_utils.preprocess_input, by its mode
    "caffe": ("BGR", "0..255", (103.939, 116.779, 123.68), (1, 1, 1)),
    "tf": ("RGB", "-1..1", (0, 0, 0), (1, 1, 1)),
    "torch": ("RGB", "0..1", MEAN, STD),
    "raw": ("RGB", "0..255", (0, 0, 0), (1, 1, 1)),  # EfficientNet scales inside
}


def keras(photo: Image.Image, mode: str) -> torch.Tensor:
    """``load_img(target_size=(224, 200))``, ``img_to_array`` and ``preprocess_input``."""
    x = np.asarray(photo.resize((200, 224), Image.Resampling.NEAREST), np.float32)
    if mode == "caffe":
        x = x[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32)
    elif mode == "tf":
        x = x / 127.5 - 1
    elif mode == "torch":
        x = (x / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(x.astype(np.float32)).permute(2, 0, 1)


@pytest.mark.parametrize("mode", KERAS)
def test_prepared_as_by_keras(mode):
    channels, scale, mean, std = KERAS[mode]
    preprocess = Preprocessing(
        (224, 200), "squash", Interpolation.NEAREST, mean, std, channels, scale
    )
    expect_equal(preprocess, lambda photo: keras(photo, mode), atol=2e-5)


TIMM = {  # of weights in timm, and what their configurations say that is odd
    "vit_base_patch16_sapiens2.fb": ((1024, 768), "squash"),  # not square
    "dm_nfnet_f0.dm_in1k": ((192, 192), (213, 213)),  # squashed, and the centre cut out
    "coat_lite_medium_384.in1k": ((384, 384), "squash"),
    "cspdarknet53.ra_in1k": ((256, 256), math.floor(256 / 0.887)),
}


@pytest.mark.parametrize("name", TIMM)
def test_prepared_as_by_timm(name):
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install '.[timm]'")
    found = timm.models.get_pretrained_cfg(name).to_dict()
    config = timm.data.resolve_data_config(pretrained_cfg=found)
    size, resize = TIMM[name]
    assert config["input_size"] == (3, *size)
    preprocess = Preprocessing(
        size, resize, Interpolation[config["interpolation"].upper()], config["mean"], config["std"]
    )
    pipeline = timm.data.create_transform(**config, is_training=False)
    expect_equal(preprocess, pipeline, PHOTOS[:7])


@pytest.mark.parametrize("size", [(90, 90), (96, 64)])
def test_padded_as_by_timm(size):
    """timm pads with the mean: black, if that is 0."""
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install '.[timm]'")
    zeros, ones = (0.0,) * 3, (1.0,) * 3
    pipeline = timm.data.create_transform(
        (3, *size), crop_mode="border", crop_pct=1.0, mean=zeros, std=ones, interpolation="bicubic"
    )
    expect_equal(Preprocessing(size, "pad", Interpolation.BICUBIC, zeros, ones), pipeline)


@pytest.mark.parametrize("resize", [64, (64, 90), "squash", "pad"])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("size", [(1000, 750), (520, 1040), (1040, 520)])
def test_reduced_jpeg_keeps_twice_what_is_needed(size, orientation, resize):
    preprocess = Preprocessing((64, 90), resize, Interpolation.BILINEAR, MEAN, STD)
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = PHOTOS[1].resize(size)
    enough = 2 * preprocess.shorter_side
    reduced = decode(encode(photo, "JPEG", quality=95, exif=exif), 50_000_000, enough)
    assert max(reduced.size) < max(size)
    box = preprocess.visible_box(reduced.size)
    across = (box.right - box.left) * reduced.width / 90  # pixels of the photo for one of the model
    down = (box.bottom - box.top) * reduced.height / 64
    assert min(across, down) >= 2
