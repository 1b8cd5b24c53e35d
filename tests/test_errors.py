from http import HTTPStatus

import pytest

from predictor import errors
from predictor.errors import (
    InferenceFailed,
    OutOfMemory,
    Overloaded,
    PredictorError,
    inference_failure,
)


def tree(root: type[PredictorError] = PredictorError) -> list[type[PredictorError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in tree(child))]


def test_every_error_of_the_module_is_in_the_tree():
    declared = {
        e for e in vars(errors).values() if isinstance(e, type) and e.__module__ == errors.__name__
    }
    assert declared == set(tree())


@pytest.mark.parametrize("error", tree())
def test_every_error_is_in_the_docstring_with_status_and_code(error):
    assert error.__name__ in errors.__doc__.split()
    assert isinstance(error.status, HTTPStatus)
    assert error.code == error.code.lower()
    assert error.status >= 400


@pytest.mark.parametrize(("given", "header"), [(None, 1), (0.0, 1), (0.2, 1), (4.2, 5)])
def test_retry_after_is_rounded_up_to_whole_seconds(given, header):
    assert Overloaded("Retry later.", given).retry_after_s == header


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"
        ),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA"),
    ],
)
def test_a_model_that_runs_out_of_memory_can_be_retried(error):
    failure = inference_failure(error)
    assert type(failure) is OutOfMemory
    assert failure.retry_after_s == 1
    assert failure.__cause__ is error


def test_the_cause_of_a_model_failure_is_not_in_its_message():
    failure = inference_failure(RuntimeError("/home/me/secret.py"))
    assert type(failure) is InferenceFailed
    assert "secret" not in str(failure)
