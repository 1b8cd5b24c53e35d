import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from paths import ROOT
from pictures import COLOURS, picture
from predictor.cli import main
from predictor.cli.inspect import scale_doubts
from predictor.images.preprocessing import Interpolation, Preprocessing
from predictor.models.description import Said
from predictor.models.labels import numbered
from predictor.models.outputs import Output
from toy import ToyInfo, ToyModel, toy_model

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SAMPLE = ROOT / "static" / "samples" / "espresso.jpg"


@pytest.fixture
def photo(tmp_path):
    (tmp_path / "a.png").write_bytes(picture("green"))
    return tmp_path / "a.png"


def toy(scorer=None, said=None, **card):
    """A function that loads a toy model of another card."""
    model = toy_model(scorer)
    made = replace(model, card=replace(model.card, **card), said=said or {})
    return lambda *_: made


# What is printed


def test_every_value_has_who_says_it(predict, photo):
    said = {
        "input.mean": Said((0.0,), "model.toml: input.mean"),
        "labels": Said("a.txt", "PREDICTOR_LABELS"),
    }
    status, out, err = predict("inspect", photo, load=toy(said=said))
    assert (status, err) == (0, "")
    rows = dict(re.findall(r"^([\w.]+) +(.*)", out.split("\n\n")[0], re.MULTILINE))
    assert rows["source"] == "toy (PREDICTOR_MODEL)"
    assert rows["weights"] == "toy.pth (the source)"
    assert rows["input.mean"] == "[0, 0, 0] (model.toml: input.mean)"
    assert rows["input.std"] == "[1, 1, 1] (default)"
    assert rows["input.interpolation"] == "bilinear (default)"
    assert rows["labels"] == (
        "3, from n00000000 red_thing to n00000002 blue_thing (PREDICTOR_LABELS)"
    )
    assert rows["output.activation"] == "softmax (default)"
    assert rows["batch"] == "at most 8 photos"
    assert set(ToyModel.preprocessing.as_json()) <= {key.removeprefix("input.") for key in rows}


def test_all_of_the_output_is_printed(predict, photo):
    said = {"output.threshold": Said(0.3, "model.toml: output.threshold")}
    load = toy(said=said, output=Output("sigmoid", 0.3, "logits"))
    _, out, _ = predict("inspect", photo, load=load)
    rows = dict(re.findall(r"^([\w.]+) +(.*)", out, re.MULTILINE))
    assert rows["output.activation"] == "sigmoid (default)"
    assert rows["output.threshold"] == "0.3 (model.toml: output.threshold)"
    assert rows["output.select"] == "logits (default)"


def test_numbered_labels_are_named_by_nobody(predict, photo):
    """The labels of the weights do not count if they are of another number."""
    load = toy(said={"labels": Said("imagenet", "the source")}, labels=numbered(3))
    assert (
        "3, from 0 class 0 to 2 class 2 (nobody names them)"
        in predict("inspect", photo, load=load)[1]
    )


def test_the_photos_best_classes_follow(predict, photo):
    _, out, _ = predict("inspect", photo)
    lines = out.split("\n\n")[1].splitlines()
    assert lines[0] == str(photo)
    assert [line.split()[-1] for line in lines[1:4]] == ["green_thing", "red_thing", "blue_thing"]


def test_what_the_order_of_channels_changes_is_shown(predict, photo):
    photo.write_bytes(picture("red"))
    _, out, _ = predict("inspect", photo)
    assert out.endswith("If red and blue change places: 100.0%  blue_thing\n")


def test_without_a_photo_the_sample_is_read(predict):
    status, out, _ = predict("inspect")
    assert (status, str(SAMPLE) in out) == (0, True)


def test_picture_is_what_the_model_sees(predict, tmp_path):
    photo, seen = tmp_path / "half.png", tmp_path / "seen.png"
    half = Image.new("RGB", (40, 20), "blue")
    half.paste("yellow", (0, 0, 16, 20))
    half.save(photo)
    assert predict("inspect", photo, "--picture", seen)[0] == 0
    expected = ToyModel.preprocessing(Image.open(photo))
    np.testing.assert_array_equal(np.asarray(Image.open(seen)), expected)


def test_picture_of_a_bgr_model_has_the_photos_colours(predict, photo, tmp_path):
    class Reversed(ToyModel):
        preprocessing = replace(ToyModel.preprocessing, channels="BGR")

    scorer, seen = Reversed(), tmp_path / "seen.png"
    photo.write_bytes(picture("red"))
    predict("inspect", photo, "--picture", seen, load=toy(scorer, input=scorer.preprocessing))
    assert Image.open(seen).getpixel((4, 4)) == COLOURS["red"]


def test_json_is_the_models_description_and_nothing_else(predict, photo):
    status, out, _ = predict("inspect", photo, "--json")
    card = json.loads(out)
    assert status == 0
    assert card["labels"]["1"] == ["n00000001", "green_thing"]
    assert card["input"] == ToyModel.preprocessing.as_json()


def test_sample_is_resized_for_a_model_of_one_size_and_a_photo_is_not(predict, photo):
    class Fixed(ToyModel):
        preprocessing = replace(ToyModel.preprocessing, resize="none")

    load = toy(Fixed(), input=Fixed.preprocessing)
    assert predict("inspect", load=load)[0] == 0
    status, _, err = predict("inspect", photo, load=load)
    assert status == 1
    assert err.startswith(f"{photo}: The image has 32 × 24 pixels; the model takes 8 × 8 only.")


@pytest.mark.parametrize("name", ["gone.png", "notes.txt"])
def test_photo_that_cannot_be_read_is_exit_status_1_after_the_description(predict, tmp_path, name):
    (tmp_path / "notes.txt").write_text("no photo")
    status, out, err = predict("inspect", tmp_path / name)
    assert (status, "input.mean" in out) == (1, True)
    assert err.startswith(f"{tmp_path / name}: T")


def test_picture_that_cannot_be_written_is_one_sentence(predict, photo, tmp_path):
    status, _, err = predict("inspect", photo, "--picture", tmp_path / "no" / "folder.png")
    assert (status, err) == (2, "The results cannot be written: No such file or directory.\n")


# A real model


@pytest.mark.slow
def test_origins_of_a_real_models_values(tmp_path, monkeypatch, capsys):
    (tmp_path / "model.toml").write_text(
        'source = "torchvision:squeezenet1_1"\nweights = "random"\nlabels = "a.txt"\n'
        "[input]\nmean = [0.4, 0.4, 0.4]\n"
    )
    (tmp_path / "a.txt").write_text("a\nb\n")
    monkeypatch.setenv("PREDICTOR_INTERPOLATION", "bicubic")
    assert main(["inspect", "--model", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    toml = f"({tmp_path}/model.toml: "
    for row in (
        rf"source +torchvision:squeezenet1_1 {toml}source\)",
        rf"weights +random {toml}weights\)",
        r"input.size +\[224, 224\] \(torchvision's SqueezeNet1_1_Weights.IMAGENET1K_V1: input.size",
        rf"input.mean +\[0.4, 0.4, 0.4\] {toml}input.mean\)",
        r"input.interpolation +bicubic \(PREDICTOR_INTERPOLATION\)",
        rf"labels +2, from 0 a to 1 b {toml}labels\)",
        "parameters +723,522\n",
    ):
        assert re.search(row.replace("(/", r"\(/"), out), row
    assert "The weights are random" in err


# Warnings


def prepared(mean, std, scale="0..1"):
    return Preprocessing((8, 8), 8, Interpolation.BILINEAR, mean, std, scale=scale)


@pytest.mark.parametrize(
    "good",
    [
        prepared(*IMAGENET),
        prepared((0.5,) * 3, (0.5,) * 3),
        prepared((0,) * 3, (1,) * 3),
        prepared((0,) * 3, (1,) * 3, "-1..1"),
        prepared((103.9, 116.8, 123.7), (1,) * 3, "0..255"),
        prepared((123.7, 116.8, 103.9), (58.4, 57.1, 57.4), "0..255"),
        prepared((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    ],
)
def test_usual_means_and_deviations_give_no_warning(good):
    assert list(scale_doubts(good)) == []


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (prepared((123.7, 116.8, 103.9), (58.4, 57.1, 57.4)), "differ by only 0.017"),
        (prepared((123.7, 116.8, 103.9), IMAGENET[1]), "Normalised pixels reach 540"),
        (prepared(*IMAGENET, "0..255"), "Normalised pixels reach 1,136"),
        (prepared((0.5,) * 3, (0.001,) * 3), "Normalised pixels reach 500"),
    ],
)
def test_mean_and_deviation_on_another_scale_give_a_warning(predict, photo, bad, words):
    (doubt,) = scale_doubts(bad)
    assert words in doubt
    status, _, err = predict("inspect", photo, load=toy(input=bad))
    assert (status, err) == (0, f"WARNING: {doubt}\n")


class Constant(ToyModel):
    """Answers the same for each picture."""

    def logits(self, images, lanes):
        return np.tile(np.array([0, 2, 0], np.float32), (len(images), 1))


def test_class_that_wins_for_every_picture_gives_a_warning(predict, photo):
    status, _, err = predict("inspect", photo, load=toy(Constant()))
    assert status == 0
    assert err.startswith("WARNING: green_thing wins for a black picture, a white one")


@pytest.mark.parametrize(("classes", "warns"), [(3, False), (1000, True)])
def test_one_of_few_classes_may_win_by_chance(predict, photo, classes, warns):
    """If its probability depends on the picture. Of many classes, it is unlikely."""

    class Second(ToyModel):
        def logits(self, images, lanes):
            return np.stack([np.eye(classes)[1] * (2 + image.mean() / 255) for image in images])

    _, _, err = predict("inspect", photo, load=toy(Second(), labels=numbered(classes)))
    assert ("class 1 wins" in err) is warns


def test_random_weights_give_their_notice(predict, photo):
    class Info(ToyInfo):
        notice = "The weights are random."

    model = replace(toy_model(), info=Info())
    assert "NOTE: The weights are random." in predict("inspect", photo, load=lambda *_: model)[2]
