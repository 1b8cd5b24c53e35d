"""Estimates of the waiting time, and deadlines."""

import threading
from time import monotonic

import numpy as np
import pytest

from engine.gate import results
from predictor.engine.batching import Batcher, ItemCost
from predictor.engine.lanes import Lanes
from predictor.errors import DeadlineExceeded, Overloaded
from waiting import wait_until


class FixedCost(ItemCost):
    """An estimate that does not learn from the calls."""

    def learn(self, seconds, items):
        pass


def test_a_refusal_says_how_long_the_backlog_takes(gate, make_batcher):
    batcher = make_batcher(max_queue=2, max_batch_size=1, cost=FixedCost(3.0))
    assert batcher.backlog_s == 0
    batcher.submit([1])
    wait_until(lambda: batcher.waiting == 0)
    batcher.submit([2])
    batcher.submit([3])
    assert batcher.backlog_s == 9
    with pytest.raises(Overloaded) as refusal:
        batcher.submit([4])
    assert refusal.value.retry_after_s == 9


def test_an_item_behind_others_is_refused_if_it_would_be_late(gate, make_batcher):
    batcher = make_batcher(max_batch_size=1, cost=FixedCost(100.0))
    batcher.submit([1])
    gate.entered.acquire(timeout=10)
    batcher.submit([2])
    with pytest.raises(Overloaded, match="not be answered in time"):
        batcher.submit([3], monotonic() + 50)


def test_an_item_that_comes_before_others_is_not_refused_for_them(gate, make_batcher):
    """With a slow model, 3 clients with lists of 64 would refuse the photos of all others."""
    batcher = make_batcher(max_batch_size=1, cost=FixedCost(10.0))
    first = batcher.submit([1])
    gate.entered.acquire(timeout=10)
    many = batcher.submit(range(2, 10))
    with pytest.raises(Overloaded, match="not be answered in time"):
        batcher.submit([10, 11, 12], monotonic() + 55)
    (single,) = batcher.submit([13], monotonic() + 55)
    gate.let.release(20)
    results([*first, single, *many])
    assert gate.batches.index([13]) < 4


def test_a_late_item_in_an_empty_queue_is_accepted_and_not_run(gate, make_batcher):
    batcher = make_batcher(max_batch_size=1, cost=FixedCost(1000.0))
    batcher.submit([0])
    gate.entered.acquire(timeout=10)
    late = batcher.submit([1], monotonic() + 50)
    gate.let.release()
    with pytest.raises(DeadlineExceeded):
        results(late)
    assert gate.batches == [[0]]


def test_a_late_image_does_not_harm_another_image_of_its_batch(gate):
    """Arrays cannot be compared as the jobs' other fields can."""
    entered = threading.Event()

    def infer(items, _lanes):
        entered.set()
        assert gate.let.acquire(timeout=10)
        return items

    batcher = Batcher(Lanes(), infer, max_batch_size=4, max_queue=8, cost=FixedCost(1000.0))
    (first,) = batcher.submit([np.zeros(2)])
    assert entered.wait(10)
    (late,) = batcher.submit([np.zeros(2)], monotonic() + 50)
    (other,) = batcher.submit([np.ones(2)])
    gate.let.release(10)
    assert [len(job.future.result(timeout=10)) for job in (first, other)] == [2, 2]
    with pytest.raises(DeadlineExceeded):
        late.future.result(timeout=10)
    assert batcher.alive
    batcher.close()


def test_without_a_deadline_a_slow_estimate_refuses_nothing(gate, make_batcher):
    cost = ItemCost(1e6)
    gate.let.release(10)
    assert results(make_batcher(cost=cost).submit([1])) == [2]
    assert cost.seconds < 1e6


def test_after_one_slow_call_requests_succeed_again(gate, make_batcher):
    batcher = make_batcher(cost=ItemCost(100.0))
    gate.let.release(10)
    outcomes = []
    while outcomes[-1:] != [[2]]:
        try:
            outcomes.append(results(batcher.submit([1], monotonic() + 50)))
        except DeadlineExceeded:
            outcomes.append("late")
    assert 1 < len(outcomes) < 10


def test_item_cost_is_a_running_mean_of_the_seconds_per_item():
    cost = ItemCost()
    cost.learn(6.0, items=3)
    assert cost.seconds == 2.0
    cost.learn(1.0, items=0)  # a call that ran nothing says nothing
    assert cost.seconds == 2.0
    cost.learn(12.0, items=1)
    assert cost.seconds == 4.0
    cost.decay()
    assert cost.seconds == pytest.approx(3.2)
