import json
import re

import pytest
import torchvision

from predictor.errors import LabelsError
from predictor.models.labels import Label, load_labels


@pytest.fixture(scope="module")
def imagenet():
    return load_labels()


def test_imagenet_has_1000_classes_in_the_order_of_their_ids(imagenet):
    wnids = [label.class_id for label in imagenet]
    assert len(wnids) == 1000
    assert all(re.fullmatch(r"n\d{8}", wnid) for wnid in wnids)
    assert wnids == sorted(set(wnids))


def test_class_285_is_the_egyptian_cat(imagenet):
    assert imagenet[285] == Label("n02124075", "Egyptian_cat")


def test_names_are_torchvisions_except_two_ambiguous_ones(imagenet):
    categories = torchvision.models.VGG16_Weights.IMAGENET1K_V1.meta["categories"]
    names = [name.replace(" ", "_") for name in categories]
    differing = {
        i: label.class_name for i, label in enumerate(imagenet) if label.class_name != names[i]
    }
    assert differing == {134: "crane", 639: "maillot"}


@pytest.mark.parametrize(
    ("name", "content", "labels"),
    [
        (
            "own.json",
            json.dumps({"0": ["c1", "cat"], "1": ["d1", "dog"]}),
            [("c1", "cat"), ("d1", "dog")],
        ),
        ("own.json", '["cat", "dog"]', [("0", "cat"), ("1", "dog")]),
        ("own.txt", "cat\ndog\n\n", [("0", "cat"), ("1", "dog")]),
        ("own.txt", "\ufeffcat\r\ndog", [("0", "cat"), ("1", "dog")]),
    ],
)
def test_labels_are_read_from_every_supported_file(tmp_path, name, content, labels):
    path = tmp_path / name
    path.write_text(content)
    assert load_labels(str(path)) == tuple(Label(*pair) for pair in labels)


@pytest.mark.parametrize(
    "content",
    ['{"0": ["a", "b"], "2": ["c", "d"]}', '{"0": "cat"}', "[1, 2]", "[]", "{}", "{", "7",
     '{"0": ["a", "x"], "1": ["a", "y"]}'],
)  # fmt: skip
def test_unusable_labels_are_an_error_that_names_the_file(tmp_path, content):
    path = tmp_path / "own.json"
    path.write_text(content)
    with pytest.raises(LabelsError, match="own.json"):
        load_labels(str(path))


def test_missing_labels_file_is_an_error():
    with pytest.raises(LabelsError, match="No such file"):
        load_labels("nowhere.json")
