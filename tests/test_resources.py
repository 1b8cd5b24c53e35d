from paths import ROOT
from predictor.resources import resource


def test_in_a_clone_resources_are_in_the_top_folder():
    assert resource("imagenet_class_index.json") == ROOT / "imagenet_class_index.json"


def test_in_a_wheel_resources_are_inside_the_package(tmp_path):
    folder = tmp_path / "_resources"
    folder.mkdir()
    assert resource("templates", package=tmp_path) == folder / "templates"
