"""Batchers that end with the test."""

import pytest

from engine.gate import Gate
from predictor.engine.batching import Batcher
from predictor.engine.lanes import Lanes


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def shared():
    return Lanes()


@pytest.fixture
def make_batcher(gate, shared):
    made = []

    def make(infer=gate, **options):
        made.append(Batcher(shared, infer, **{"max_batch_size": 4, "max_queue": 8} | options))
        return made[-1]

    yield make
    gate.let.release(1000)
    for batcher in made:
        batcher.close()
