"""Batchers that end with the test."""

import pytest

from engine.gate import Gate
from predictor.engine.batching import Batcher


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def make_batcher(gate):
    made = []

    def make(**options):
        made.append(Batcher(gate, **{"max_batch_size": 4, "max_queue": 8} | options))
        return made[-1]

    yield make
    gate.let.release(1000)
    for batcher in made:
        batcher.close()
