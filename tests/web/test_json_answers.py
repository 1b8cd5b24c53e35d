"""Responses in JSON: on one line, and written in parts."""

import json

import pytest
from flask import Flask

from predictor.web import OneLineJSON

VALUES = [
    {"class_id": "n02124075", "class_name": "Ägyptische Katze"},
    {"predictions": [{"b": 1.5, "c": [1, 2]}, {}], "parameters": None, "labels": ("a", "b")},
    {"outputs": [{"data": [[1, 2], [3]]}], 7: []},
    [{"cat": 0.5}, [1, {"x": {}}], "text", 2],
    {}, [], "text", None, 0.25,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_json_in_parts_is_the_same(value):
    with Flask("app").app_context() as context:
        written = OneLineJSON(context.app).response(value).get_data(as_text=True)
    assert written == json.dumps(value, ensure_ascii=False) + "\n"


def test_no_part_has_more_than_one_result():
    """While C writes one, no other thread runs."""
    app, sizes = Flask("app"), []

    class Counted(OneLineJSON):
        def dumps(self, obj, **kwargs):
            sizes.append(len(text := super().dumps(obj, **kwargs)))
            return text

    result = {"predictions": [{"class_name": "cat", "probability": 0.5}] * 1000}
    with app.app_context():
        for value in ({"predictions": [result] * 64}, [result] * 64):
            Counted(app).response(value)
    assert max(sizes) <= len(json.dumps(result))
