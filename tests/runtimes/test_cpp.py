"""The C++ program of ``predictor export cpp``, built once, against the server."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from export.own_net import Decides, Small
from export.wrong import WRONG, change_card, each_wrong, photos, proof, settings, write
from photographs import photographs
from pictures import encode
from predictor.export.carried import prepare
from predictor.export.subject import load
from predictor.images.preprocessing import Interpolation, Preprocessing
from predictor.models.card import Card
from predictor.models.labels import numbered
from predictor.models.outputs import Output
from profiles import P3, SRGB, cmyk_profile, grey_profile, rgb_profile
from program_files import Views, ready, save_script, scripted, traced

pytestmark = [
    pytest.mark.filterwarnings("ignore::Warning"),
    pytest.mark.timeout(1200),
    pytest.mark.usefixtures("built"),
]
ORIENTATION = 0x0112
INPUT = Preprocessing((24, 32), 40, Interpolation.BILINEAR, (0,) * 3, (1,) * 3, scale="0..255")
GREY = replace(INPUT, channels="L", mean=(0,), std=(1,))
RGBA = replace(INPUT, channels="RGBA", mean=(0,) * 4, std=(1,) * 4)


def classify(program, model, *paths, options=()):
    command = [program, *options, model, *paths]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(("kind", "classes"), [(Small, 10), (Decides, 5)])
def test_program_answers_as_the_server(tmp_path, kind, classes):
    subject = load(settings(tmp_path, kind))
    module = write("cpp", subject, tmp_path / "out")
    found = proof(module, subject, tmp_path / "out")
    assert found.ok, found
    assert (found.same, found.photos) == (20, 20)
    assert found.classes >= classes


@each_wrong
def test_wrong_model_of_the_program_is_rejected(small, tmp_path, wrong):
    module = write("cpp", small, tmp_path / "out")
    change_card(tmp_path / "out" / "model.pt", wrong)
    found = proof(module, small, tmp_path / "out")
    assert (found.ok, found.failure) == (False, "")


def test_native_code_in_the_program_answers_as_the_server(small, tmp_path):
    module = write("cpp", small, tmp_path / "out", compile=True)
    assert proof(module, small, tmp_path / "out", compile=True).ok
    change_card(tmp_path / "out" / "model.pt2", WRONG["mean off by 0.01"])
    assert not proof(module, small, tmp_path / "out", compile=True).ok


def test_network_that_needs_contiguous_memory_answers_as_in_python(program, tmp_path):
    network, card = ready(Views), Card("views", "", INPUT, numbered(20))
    model = save_script(tmp_path / "views.pt", traced(network), **card.as_json())
    (tmp_path / "photo.jpg").write_bytes(photos()[0][1])
    done = classify(program, model, tmp_path / "photo.jpg", options=["--json"])
    pixels = torch.tensor(prepare(photos()[0][1], card)).permute(2, 0, 1)[None].float()
    expected = network(pixels).detach().numpy()[0]
    np.testing.assert_allclose(json.loads(done.stdout)["logits"], expected, 1e-4, 1e-3)


class Pixels(nn.Module):
    """Answers the pixels that it is given."""

    def forward(self, images: Tensor) -> Tensor:
        return images.permute(0, 2, 3, 1).flatten(1)


def save_pixels(folder, input: Preprocessing, output=None):
    count = int(np.prod(input.shape))
    card = Card("pixels", "", input, numbered(count), output or Output())
    return save_script(folder / "pixels.pt", scripted(Pixels()), **card.as_json()), card


def oriented(photo, orientation, format):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encode(photo, format, exif=exif.tobytes())


def variants() -> dict[str, bytes]:
    """A photograph in all kinds of JPEG and PNG."""
    photo = photographs()[4].resize((150, 100))
    grey, palette = photo.convert("L"), photo.quantize(50)
    faded = photo.copy()
    faded.putalpha(grey)
    wide = np.asarray(grey).astype(np.uint16) * 257 + 100
    found = {
        "grey.jpg": encode(grey, "JPEG"), "cmyk.jpg": encode(photo.convert("CMYK"), "JPEG"),
        "progressive.jpg": encode(photo, "JPEG", progressive=True),
        "444.jpg": encode(photo, "JPEG", subsampling=0),
        "large.jpg": encode(photo.resize((2000, 1500)), "JPEG"),
        "long.jpg": encode(photo.resize((1500, 20)), "JPEG"),
        "without end.jpg": encode(photo, "JPEG")[:-2],
        "rgb.png": encode(photo), "grey.png": encode(grey), "1.png": encode(photo.convert("1")),
        "palette.png": encode(palette), "2 bits.png": encode(photo.quantize(4), bits=2),
        "16 bits.png": encode(Image.fromarray(wide)), "alpha.png": encode(faded),
        "grey alpha.png": encode(faded.convert("LA")), "tall.png": encode(photo.resize((4, 900))),
        "hole.png": encode(palette, transparency=palette.getpixel((50, 50))),
        "p3.jpg": encode(photo, "JPEG", icc_profile=rgb_profile(P3)),
        "p3 large.jpg": encode(photo.resize((700, 500)), "JPEG", icc_profile=rgb_profile(P3)),
        "p3.png": encode(photo, icc_profile=rgb_profile(P3)),
        "p3 alpha.png": encode(faded, icc_profile=rgb_profile(P3)),
        "srgb.jpg": encode(photo, "JPEG", icc_profile=rgb_profile(SRGB)),
        "colour hole.png": encode(photo, transparency=photo.getpixel((50, 50))),
    }  # fmt: skip
    for number in range(1, 9):
        found[f"{number}.jpg"] = oriented(photo, number, "JPEG")
        found[f"{number}.png"] = oriented(photo, number, "PNG")
    return found


@pytest.mark.parametrize("input", [
    INPUT, GREY, RGBA, replace(INPUT, channels="BGR", scale="-1..1"), replace(INPUT, resize=28),
    replace(INPUT, resize=(50, 37), interpolation=Interpolation.BICUBIC),
    replace(INPUT, resize="squash", interpolation=Interpolation.LANCZOS),
    replace(INPUT, resize="pad", interpolation=Interpolation.BOX),
    replace(RGBA, resize="pad", interpolation=Interpolation.HAMMING, scale="0..1"),
], ids=lambda input: input.describe())  # fmt: skip
def test_pixels_are_the_servers_within_one_level(program, tmp_path, input):
    model, card = save_pixels(tmp_path, input)
    files = variants()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    done = classify(program, model, *(tmp_path / name for name in files), options=["--json"])
    assert (done.returncode, done.stderr) == (0, "")
    answers = {one["photo"]: one["logits"] for one in map(json.loads, done.stdout.splitlines())}
    for name, data in files.items():
        found = (
            np.reshape(answers[str(tmp_path / name)], input.shape) * input.divisor + input.offset
        )
        assert np.abs(found - prepare(data, card)).max() <= 1.001, name


@pytest.fixture
def pixels(tmp_path):
    return save_pixels(tmp_path, INPUT)[0]


def cut(photo, **options):
    data = encode(photo, **options)
    return data[: len(data) * 2 // 3]


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda photo: b"A text.", "this is neither a JPEG nor a PNG. Convert it to one of them"),
    (lambda photo: b"", "this is neither a JPEG nor a PNG. Convert it to one of them"),
    (lambda photo: cut(photo, format="JPEG"), "the JPEG is truncated. Copy or download it again"),
    (lambda photo: cut(photo, format="JPEG", progressive=True), "the JPEG is truncated"),
    (lambda photo: encode(photo, "JPEG")[:200], "the JPEG is damaged"),
    (cut, "the PNG is damaged or truncated: the file ends"),
    (None, "the file cannot be read"),
])  # fmt: skip
def test_bad_photo_gets_a_sentence_and_the_others_are_done(
    program, pixels, tmp_path, make, sentence
):
    photo = photographs()[4]
    good, bad = tmp_path / "good.png", tmp_path / "bad"
    good.write_bytes(encode(photo))
    if make:
        bad.write_bytes(make(photo))
    done = classify(program, pixels, bad, good)
    assert done.returncode == 2
    assert done.stderr.startswith(f"classify: {bad}: {sentence}")
    assert done.stderr.count("\n") == 1
    assert done.stdout.startswith(f"{good}\t")


def test_bad_model_gets_a_sentence(program, tmp_path):
    plain, text = tmp_path / "plain.pt", tmp_path / "text.pt"
    save_script(plain, scripted(Pixels()))
    text.write_text("no model")
    for model, sentence in {
        tmp_path / "missing.pt": "there is no such file.",
        text: "it is not a model of PyTorch, or it is truncated.",
        plain: "it has no description. Write it with: predictor export cpp.",
    }.items():
        done = classify(program, model, "photo.jpg")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"classify: {model}: {sentence}\n"


def test_wrong_option_prints_the_usage(program):
    for arguments in ([], ["model.pt"], ["--fast", "a", "b"], ["--batch", "0", "a", "b"]):
        done = subprocess.run([program, *arguments], capture_output=True, text=True)
        assert done.returncode == 2
        assert "Usage: classify" in done.stderr


@pytest.mark.parametrize(("mode", "profile"), [
    ("CMYK", cmyk_profile()), ("L", grey_profile(1.0)), ("RGB", b"no profile"),
], ids=["CMYK", "grey", "damaged"])  # fmt: skip
def test_ignored_colour_profile_is_said(program, pixels, tmp_path, mode, profile):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(photographs()[4].convert(mode), "JPEG", icc_profile=profile))
    done = classify(program, pixels, path)
    assert done.returncode == 0
    assert done.stderr == f"classify: {path}: its colour profile is ignored.\n"


@pytest.mark.parametrize(("output", "lines"), [
    (Output("sigmoid", 0.5), ["2", "1"]), (Output("softmax"), ["2"]),
], ids=["sigmoid", "softmax"])  # fmt: skip
def test_several_classes_are_printed_from_the_threshold_on(program, tmp_path, output, lines):
    size = replace(GREY, size=(1, 3), resize="none", mean=(100,))
    model, _ = save_pixels(tmp_path, size, output)
    path = tmp_path / "photo.png"
    path.write_bytes(encode(Image.fromarray(np.array([[90, 101, 103]], np.uint8))))
    done = classify(program, model, path)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[1] for row in rows] == lines
    expected = output.probabilities(np.array([-10, 1, 3], np.float32))
    best = sorted(expected, reverse=True)[: len(lines)]
    np.testing.assert_allclose([float(row[3]) for row in rows], best, 1e-4)


def test_photo_of_another_size_is_refused_without_resizing(program, tmp_path):
    model, _ = save_pixels(tmp_path, replace(INPUT, resize="none"))
    path = tmp_path / "photo.png"
    path.write_bytes(encode(photographs()[4]))
    done = classify(program, model, path)
    assert done.returncode == 2
    assert "the model takes photos of 32 × 24 pixels only. Resize it first." in done.stderr
