import json
import re

import pytest
import torchvision

from predictor.errors import LabelsError
from predictor.models.labels import Label, load_labels, numbered

OK_NG = (Label("0", "OK"), Label("1", "NG"))


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
    "rows",
    [
        pytest.param(["OK", "NG"], id="list"),
        pytest.param({"0": "OK", "1": "NG"}, id="index to name"),
        pytest.param({"1": "NG", "0": "OK"}, id="index to name, in another order"),
        pytest.param({"0": ["OK"], "1": ["NG"]}, id="TorchServe, lists of one"),
        pytest.param({"0": ["0", "OK"], "1": ["1", "NG"]}, id="index to id and name"),
        pytest.param({"object_type_names": ["OK", "NG"]}, id="TorchServe, object_type_names"),
        pytest.param({"NG": 1, "OK": 0}, id="class_to_idx"),
        pytest.param({"NG": "1", "OK": "0"}, id="class_to_idx as text"),
        pytest.param({"class_to_idx": {"NG": 1, "OK": 0}, "epoch": 3}, id="class_to_idx, nested"),
        pytest.param({"architecture": "vit", "label_names": ["OK", "NG"]}, id="timm"),
        pytest.param(
            {"id2label": {"0": "OK", "1": "NG"}, "label2id": {"OK": 0, "NG": 1}, "num_channels": 3},
            id="Hugging Face",
        ),
    ],
)
def test_labels_are_read_from_every_form(tmp_path, rows):
    (tmp_path / "own.json").write_text(json.dumps(rows))
    assert load_labels(tmp_path / "own.json") == load_labels(rows) == OK_NG


def test_timms_descriptions_are_the_names():
    rows = {"label_names": ["n1", "n2"], "label_descriptions": {"n1": "tench", "n2": "goldfish"}}
    assert load_labels(rows) == (Label("n1", "tench"), Label("n2", "goldfish"))


def test_class_to_idx_of_numbers_is_by_name():
    assert load_labels({"1": 0, "0": 1}) == (Label("0", "1"), Label("1", "0"))


@pytest.mark.parametrize("text", ["OK\nNG\n\n", "\ufeffOK\r\n NG", "{0: 'OK', 1: 'NG'}"])
def test_labels_are_read_from_every_text(tmp_path, text):
    path = tmp_path / "own.txt"
    path.write_text(text)
    assert load_labels(str(path)) == OK_NG


def test_classes_may_share_a_name_but_not_an_id():
    crane = {"0": ["n02012849", "crane"], "1": ["n03126707", "crane"]}
    assert {label.class_name for label in load_labels(crane)} == {"crane"}
    with pytest.raises(LabelsError, match="index 0 and 2 have the id 'a'"):
        load_labels([["a", "x"], ["b", "y"], ["a", "z"]])


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("own.json", '{"0": ["a", "b"], "2": ["c", "d"]}', "index 1 is missing; the last one is 2"),
        ("own.json", '{"1": "a", "2": "b"}', "index 0 is missing"),
        ("own.json", '{"0": "a", "0": "b"}', "'0' is there twice"),
        ("own.json", '{"0": "a", "00": "b"}', "index 00 has 'a' and 'b'"),
        ("own.json", '{"a": 0, "b": 0}', "index 0 has 'a' and 'b'"),
        ("own.json", '{"a": "x", "b": "y"}', "'a': 'x' has no class index"),
        ("own.json", '{"0": "a", "1": 2.5}', "index 1 has 2.5"),
        ("own.json", '{"0": "a", "1": ""}', "index 1 has ''"),
        ("own.json", '{"0": []}', r"index 0 has \[\]"),
        ("own.json", "[1, 2]", "index 0 has 1"),
        ("own.json", "[]", "empty"),
        ("own.json", "{}", "empty"),
        ("own.json", "7", "found 7"),
        ("own.json", "{", "line 1 column 2"),
        ("own.txt", "{0: 'a'", "never closed"),
        ("own.txt", "cat\n\ndog", "line 2 is empty"),
        ("own.txt", "", "empty"),
        ("own.csv", "0,cat", "CSV"),
    ],
)
def test_error_names_the_file_and_the_first_fault(tmp_path, name, content, reason):
    (tmp_path / name).write_text(content)
    with pytest.raises(LabelsError, match=f"{name} cannot be .*{reason}.*Accepted"):
        load_labels(tmp_path / name)


def test_binary_file_is_an_error(tmp_path):
    (tmp_path / "own.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LabelsError, match="own.txt"):
        load_labels(tmp_path / "own.txt")


def test_missing_labels_file_is_an_error():
    with pytest.raises(LabelsError, match="No such file"):
        load_labels("nowhere.json")


def test_model_without_labels_has_numbered_classes():
    assert numbered(2) == (Label("0", "class 0"), Label("1", "class 1"))
