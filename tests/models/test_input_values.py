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
    accepted = r"squash, pad, none, or the shorter side's length or \[height, width\], from 1"
    with pytest.raises(ModelError, match=rf"model.toml: input.resize is .*; it must be {accepted}"):
        describe({"input": REST | {"resize": given}}, "model.toml")
