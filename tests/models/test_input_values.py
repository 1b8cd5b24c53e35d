import pytest

from predictor.errors import ModelError
from predictor.models.description import describe, input_of

REST = {"size": 224, "mean": [0.5], "std": [0.5]}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (256, 256),
        ("256", 256),
        ([256], 256),
        ([256, 300], (256, 300)),
        ("256x300", (256, 300)),
        ("squash", "squash"),
        ("pad", "pad"),
        ("none", "none"),
    ],
)
def test_resize_is_read_as_torchvision_reads_it(given, expected):
    said = describe({"input": REST | {"resize": given}}, "model.toml")
    assert input_of(said, {}, "net").resize == expected


@pytest.mark.parametrize("given", [0, 4097, -1, 1.5, True, [], [1, 2, 3], "fit", "256x", "x", ""])
def test_other_resize_is_refused_with_what_is_accepted(given):
    accepted = r"squash, pad, none, or the shorter side's length or height and width, such as \[160"
    with pytest.raises(ModelError, match=rf"model.toml: input.resize is .*; it must be {accepted}"):
        describe({"input": REST | {"resize": given}}, "model.toml")


@pytest.mark.parametrize(
    ("given", "channels"),
    [
        ({"mean": 0.5, "std": 0.25}, "RGB"),
        ({"mean": [0.5], "std": [0.25, 0.25, 0.25]}, "RGB"),
        ({"mean": 0.5, "std": [0.25] * 4}, "RGBA"),
        ({"mean": 0.5, "std": 0.25, "channels": "L"}, "L"),
        ({"mean": 0.5, "std": 0.25, "channels": "BGR"}, "BGR"),
        ({"scale": "0..255", "mean": 0.5, "std": 0.25}, "RGB"),
    ],
)
def test_one_mean_is_for_all_channels_of_rgb_unless_others_are_said(given, channels):
    said = describe({"input": {"size": 224, "resize": 256} | given}, "model.toml")
    found = input_of(said, {}, "net")
    count = len(channels)
    assert (found.channels, found.mean, found.std) == (channels, (0.5,) * count, (0.25,) * count)


def test_a_scale_may_be_all_of_the_normalisation_of_rgb():
    said = describe({"input": {"size": 224, "resize": 256, "scale": "-1..1"}}, "model.toml")
    assert input_of(said, {}, "net").channels == "RGB"
