"""The Java code for phones prepares photos as the server does."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from paths import ROOT, TESTS
from photographs import photographs
from predictor.images.preprocessing import Interpolation, Preprocessing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("javac") is None, reason="javac is not on the PATH"),
]
PHONES = ROOT / "predictor" / "export" / "phones"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VGG16 = Preprocessing((224, 224), 255, Interpolation.BILINEAR, MEAN, STD)
KINDS = {
    "VGG16": VGG16,
    "EfficientNet-Lite0": replace(
        VGG16, resize=256, interpolation=Interpolation.BICUBIC, scale="-1..1"
    ),
    "lanczos": replace(VGG16, interpolation=Interpolation.LANCZOS),
    "hamming": replace(VGG16, interpolation=Interpolation.HAMMING),
    "box": replace(VGG16, interpolation=Interpolation.BOX),
    "squash": replace(VGG16, resize="squash", scale="0..255"),
    "pad": replace(VGG16, resize="pad"),
    "height and width": replace(VGG16, resize=(240, 300)),
    "centre larger than the photo": replace(VGG16, resize=100),
    "BGR": replace(VGG16, channels="BGR"),
    "not square": replace(VGG16, size=(160, 257), resize=171),
    "grey": replace(VGG16, channels="L", mean=(0.5,), std=(0.25,)),
}


def line(photo, out, input):
    """The arguments of one photo for PreparePhotos.java."""
    resize, resized = input.resize, "-"
    if isinstance(resize, int):
        resize, resized = "side", str(input.resize)
    elif isinstance(resize, tuple):
        resize, resized = "size", ",".join(map(str, input.resize))
    size, mean, std = (",".join(map(str, one)) for one in (input.size, input.mean, input.std))
    how = input.interpolation.name.lower()
    return (
        f"{photo} {out} {size} {resize} {resized} {how} {mean} {std} {input.channels} {input.scale}"
    )


def odd_photos():
    """A long, a high, a tiny and a transparent photo."""
    cat = photographs()[4]
    veil = Image.linear_gradient("L").resize(cat.size)
    transparent = cat.copy()
    transparent.putalpha(veil)
    return [cat.resize((1500, 40)), cat.resize((20, 900)), cat.resize((3, 5)), transparent]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """By kind: the photos, and what Java makes of each: its pixels, and the normalised batch."""
    folder = tmp_path_factory.mktemp("java")
    sources = [PHONES / "Prepare.java", TESTS / "runtimes" / "PreparePhotos.java"]
    subprocess.run(
        ["javac", "-Xlint:all", "-Werror", "-encoding", "UTF-8", "-d", folder, *sources], check=True
    )
    photos = [*photographs(), *odd_photos()]
    for at, photo in enumerate(photos):
        photo.save(folder / f"{at}.png")
    lines = [
        line(folder / f"{at}.png", folder / f"{number}-{at}", input)
        for number, input in enumerate(KINDS.values())
        for at in range(len(photos))
    ]
    (folder / "photos.txt").write_text("\n".join(lines))
    subprocess.run(["java", "-cp", folder, "PreparePhotos", folder / "photos.txt"], check=True)
    return {
        kind: [
            (photo, *read((folder / f"{number}-{at}").read_bytes(), input))
            for at, photo in enumerate(photos)
        ]
        for number, (kind, input) in enumerate(KINDS.items())
    }


def read(data, input):
    """``(height, width, C)`` uint8 and ``(C, height, width)`` float32."""
    height, width, channels = input.shape
    count = height * width * channels
    pixels = np.frombuffer(data[:count], np.uint8).reshape(input.shape)
    return pixels, np.frombuffer(data[count:], ">f4").reshape(channels, height, width)


def largest_difference(one, other):
    return np.abs(one.astype(int) - other).max()


def server(input, photo):
    """The server's pixels of a decoded photo."""
    from predictor.images.colour import to_rgb

    return input(to_rgb(photo))


@pytest.mark.parametrize("kind", KINDS)
def test_java_gives_the_servers_pixels_within_one_level(prepared, kind):
    for photo, pixels, _ in prepared[kind]:
        assert largest_difference(pixels, server(KINDS[kind], photo)) <= 1, photo.size


@pytest.mark.parametrize("kind", KINDS)
def test_java_normalises_as_the_server(prepared, kind):
    input = KINDS[kind]
    for _, pixels, batch in prepared[kind]:
        expected = ((pixels.astype(np.float32) - input.offset) / input.divisor).transpose(2, 0, 1)
        np.testing.assert_allclose(batch, expected, rtol=1e-6, atol=1e-6)


def test_pixels_of_another_resize_differ_by_more(prepared):
    wrong = replace(VGG16, resize=256)
    assert all(
        largest_difference(pixels, server(wrong, photo)) > 1
        for photo, pixels, _ in prepared["VGG16"][:20]
    )
