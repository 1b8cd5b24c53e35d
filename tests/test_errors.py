from http import HTTPStatus

import pytest

from predictor import errors
from predictor.errors import PredictorError


def tree(root: type[PredictorError] = PredictorError) -> list[type[PredictorError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in tree(child))]


def test_every_error_of_the_module_hangs_on_the_tree():
    declared = {
        e for e in vars(errors).values() if isinstance(e, type) and e.__module__ == errors.__name__
    }
    assert declared == set(tree())


@pytest.mark.parametrize("error", tree())
def test_every_error_is_drawn_and_has_a_status_and_a_code(error):
    assert (
        f" {error.__name__}"
        in f" {errors.__doc__.replace('    PredictorError', ' PredictorError')}"
    )
    assert isinstance(error.status, HTTPStatus)
    assert error.code == error.code.lower()
    assert error.status >= 400
