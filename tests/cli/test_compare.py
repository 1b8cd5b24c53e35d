"""``predictor store compare``, and its figures against other ways to compute them."""

import re
from dataclasses import replace

import numpy as np
import pytest
from test_evaluate import Page

from pictures import picture
from predictor.cli import main, photos
from predictor.cli.evaluation import PICTURES, Comparison
from predictor.engine.classifier import Classifier
from predictor.engine.ranking import Prediction
from predictor.errors import ModelError
from predictor.models.labels import Label, numbered
from predictor.models.outputs import Output
from toy import ToyModel, toy_model

LABELS = numbered(3)
ONES = "red_thing", "green_thing", "blue_thing"


class Turned(ToyModel):
    """Takes blue for green, and green for blue."""

    def logits(self, images, lanes):
        return super().logits(images, lanes)[:, [0, 2, 1]]


def load(settings, _cpus):
    return toy_model(Turned() if settings.model.endswith("/2") else None)


@pytest.fixture
def compare(capsys, monkeypatch, tmp_path):
    """Compare toy/1 and toy/2 on photos that are put into folders by their class."""
    for version in "12":
        (tmp_path / "models" / "toy" / version).mkdir(parents=True)

    def run(photos, *further, load=load, named="toy/2"):
        for number, (folder, content) in enumerate(photos):
            place = tmp_path / "photos" / folder
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.png").write_bytes(content)
        store = ["--store", tmp_path / "models", "--photos", tmp_path / "photos"]
        made = lambda settings, process: Classifier(settings, load, process)  # noqa: E731
        monkeypatch.setattr("predictor.cli.compare.Classifier", made)
        arguments = ("store", "compare", "toy/1", named, *store, *further)
        return main([str(argument) for argument in arguments]), *capsys.readouterr()

    return run


def facts_of(out):
    return dict(re.findall(r"^(\w[\w ]*?) {2,}(\S.*)", out.partition("\n\n")[0], re.MULTILINE))


def test_terminal_shows_all_figures_of_labelled_photos(compare):
    photos = [(f"{colour}_thing", picture(colour)) for colour in ("red", "red", "red", "blue")]
    status, out, err = compare([*photos, ("green_thing", b"no photo")])
    assert status == 1
    assert "4.png: This is not an image" in err
    facts = facts_of(out)
    assert facts["first"] == "toy/1: toy, toy.pth"
    assert facts["errors"] == "1, not counted below"
    assert facts["agreement"] == "75.0%, 3 of 4; 95 % interval 30.1% to 95.4%"
    assert facts["first right"].startswith("100.0%, 4 of 4")
    assert facts["second right"].startswith("75.0%, 3 of 4")
    assert facts["gain"].startswith("-25.0%; 95 % interval -")
    assert "1.000 and 1.000 on average" in facts["probability"]
    assert re.match(r"[\d.]+ and [\d.]+ photos/s", facts["speed"])
    lines = [line.split() for line in out.splitlines()]
    assert ["1", "0", "100.0%", "0.0%", "n00000002", "blue_thing"] in lines
    assert ["0", "1", "–", "–", "n00000001", "green_thing"] in lines
    assert ["1", "n00000002", "blue_thing", "→", "n00000001", "green_thing"] in lines


def test_photos_without_classes_are_compared_all_the_same(compare):
    status, out, err = compare([("holiday", picture("red")), ("holiday", picture("blue"))])
    assert status == 0
    assert "The right classes are not known, only the answers." in err
    assert facts_of(out)["agreement"].startswith("50.0%, 1 of 2")
    assert "right" not in out


def test_page_shows_the_photos_with_different_answers(compare, tmp_path):
    photos = [("<b>", picture("red")), ("<b>", picture("blue"))]
    assert compare(photos, "--html", tmp_path / "page.html")[0] == 0
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert "toy/1 and toy/2 give 50.0% of 2 photos the same class" in page.text
    (image,) = page.all("img")
    assert image["src"].startswith("data:image/jpeg;base64,")
    assert "toy/2: green_thing 100.0%" in re.sub(r"\s+", " ", page.text)
    assert (page.all("b"), page.all("script"), page.all("link")) == ([], [], [])
    assert {"http-equiv": "Content-Security-Policy",
            "content": "default-src 'none'; style-src 'unsafe-inline'; img-src data:"} in page.all(
        "meta"
    )  # fmt: skip
    assert "/<b>/1.png" in page.text


def test_models_take_turns_and_begin_in_turn(compare, monkeypatch):
    turns, real = [], photos.classify

    def noted(classifier, *further):
        turns.append(classifier.settings.model[-1])
        return real(classifier, *further)

    monkeypatch.setattr(photos, "classify", noted)
    monkeypatch.setattr("predictor.cli.compare.CHUNK", 1)
    assert compare([("red_thing", picture("red"))] * 3)[0] == 0
    assert "".join(turns) == "211221"


@pytest.mark.parametrize(
    ("named", "said"),
    [("toy/3", "toy/3 is not in"), ("toys/1", "toys/1 is not in"), ("toy", "toy is not in")],
)
def test_unknown_version_is_refused(compare, named, said):
    status, _, err = compare([], named=named)
    assert (status, err.startswith(said)) == (2, True)
    assert "which has toy/1, toy/2." in err


def test_version_that_cannot_be_loaded_is_exit_status_2(compare):
    def fails(settings, cpus):
        raise ModelError("The model is broken.")

    status, _, err = compare([("red_thing", picture("red"))], load=fails)
    assert (status, "The model is broken." in err) == (2, True)


def test_model_of_several_labels_is_refused(compare):
    def several(settings, cpus):
        model = load(settings, cpus)
        return replace(model, card=replace(model.card, output=Output("sigmoid", 0.5)))

    status, _, err = compare([("red_thing", picture("red"))], load=several)
    assert (status, err) == (2, "toy/1 answers with several labels, not with one class.\n")


def test_models_without_a_common_class_are_refused(compare):
    def other(settings, cpus):
        model = load(settings, cpus)
        labels = tuple(Label(f"x{i}", f"x{i}") for i in range(3))
        return model if settings.model.endswith("/1") else replace(
            model, card=replace(model.card, labels=labels)
        )  # fmt: skip

    status, _, err = compare([("red_thing", picture("red"))], load=other)
    assert (status, "no class in common" in err) == (2, True)


# Figures


def best(index, probability=0.9, labels=LABELS):
    return [Prediction(index, *labels[index], probability)]


@pytest.mark.parametrize(
    ("second", "index", "place"),
    [
        ([("0", "dog"), ("1", "cat")], 1, 0),  # another order of the names, without ids
        ([("n1", "Cat"), ("n2", "Dog")], 0, 0),  # other names of the same ids
        ([("0", "ape"), ("1", "cat"), ("2", "dog")], 2, 1),  # a further class
    ],
)
def test_classes_are_matched_by_what_they_have_in_common(second, index, place):
    ids = ("n1", "n2") if second[0][0] == "n1" else ("0", "1")
    first = [Label(ids[0], "cat"), Label(ids[1], "dog")]
    second = [Label(*label) for label in second]
    comparison = Comparison(first, second)
    comparison.add("a.png", None, best(place, labels=first), best(index, labels=second))
    assert comparison.both.right == 1


def test_class_of_the_second_model_alone_is_no_agreement():
    comparison = Comparison(LABELS[:2], LABELS)
    comparison.add("a.png", 2, best(1), best(2))
    assert (comparison.both.right, comparison.each[0].right, comparison.each[1].right) == (0, 0, 1)
    assert {row[1:3] for row in comparison.classes()} == {(1, 0), (0, 1)}


@pytest.mark.parametrize("shares", [(0.9, 0.02, 0.04), (0.2, 0.1, 0.3)])
def test_95_of_100_intervals_have_the_true_gain(shares):
    """Shares of photos that both answer right, only the first, and only the second."""
    random, inside = np.random.default_rng(0), 0
    both, lost, won = shares
    for counts in random.multinomial(100, [both, lost, won, 1 - sum(shares)], 1000):
        comparison = Comparison(LABELS, LABELS)
        kinds = ((True, True), (True, False), (False, True), (False, False))
        comparison._right.update(dict(zip(kinds, counts.tolist(), strict=True)))
        gain, low, high = comparison.gain()
        assert low <= gain <= high
        inside += low <= won - lost <= high
    assert 930 <= inside <= 985


def test_the_most_certain_differences_are_kept_and_no_more():
    comparison = Comparison(LABELS, LABELS)
    for number in np.random.default_rng(1).permutation(3 * PICTURES).tolist():
        comparison.add(f"{number}", None, best(0, 0.99), best(1, 0.3 + number / 1000))
    assert len(comparison.apart) == PICTURES
    assert min(comparison.apart)[0] == pytest.approx(0.3 + 2 * PICTURES / 1000)
