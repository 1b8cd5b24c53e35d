import pytest

from predictor.web.params import quoted


@pytest.mark.parametrize(
    ("value", "text"),
    [("FP16", "'FP16'"), (1.5, "1.5"), (None, "None"), ([1] * 9, "an array"), ({}, "an object")],
)
def test_value_is_quoted_in_short(value, text):
    assert quoted(value) == text


def test_long_text_is_cut_before_it_is_quoted():
    assert quoted("\x7f" * 1000) == repr("\x7f" * 100)
