"""Several models share the inference threads of a process."""

import gc
import itertools
import threading
import weakref
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from engine.gate import Gate, results
from predictor.engine.batching import Batcher, ItemCost
from predictor.engine.lanes import Lanes
from predictor.errors import InferenceFailed
from waiting import wait_until


class Known(ItemCost):
    """An estimate that is right from the start and does not change."""

    def learn(self, seconds, items):
        pass


class Scheduled:
    """Batchers whose calls are begun and ended by the test, on a clock of its own."""

    def __init__(self, monkeypatch, batch=1, cost=1e-9, **lanes):
        self.now = 0.0
        monkeypatch.setattr("predictor.engine.lanes.monotonic", lambda: self.now)
        idents = itertools.count()  # each call is on another thread
        fake = SimpleNamespace(
            Condition=threading.Condition, Thread=Mock(), get_ident=lambda: next(idents)
        )
        monkeypatch.setattr("predictor.engine.lanes.threading", fake)
        self.shared = Lanes()
        self.shared._is_first_idle = lambda: True  # each thread does what it may
        self.made = {
            name: Batcher(
                self.shared,
                None,
                max_batch_size=batch,
                max_queue=10**6,
                lanes=count,
                cost=Known(cost),
            )
            for name, count in lanes.items()
        }

    def begin(self):
        """Begin the next call, as an inference thread does; return it with the name."""
        with self.shared.changed:
            begun, _ = self.shared._begin() if self.shared._free else (None, None)
        if begun is None:
            return None, None
        return next(name for name, one in self.made.items() if one is begun.batcher), begun

    def serve(self, seconds, calls):
        """Run calls one after the other; return the names in order."""
        order = []
        for _ in range(calls):
            name, begun = self.begin()
            self.now += seconds[name]
            self.shared._end(begun)
            order.append(name)
        return order


def test_a_slow_model_gets_no_more_time_than_a_fast_one(monkeypatch):
    scheduled = Scheduled(monkeypatch, slow=1, fast=1)
    for one in scheduled.made.values():
        one.submit([0] * 1000)
    order = scheduled.serve({"slow": 10, "fast": 1}, 110)
    assert (order.count("slow"), order.count("fast")) == (10, 100)


def test_no_model_waits_for_more_than_one_call_of_each_other(monkeypatch):
    scheduled = Scheduled(monkeypatch, a=1, b=1, c=1)
    for one in scheduled.made.values():
        one.submit([0] * 100)
    order = scheduled.serve({"a": 1, "b": 1, "c": 1}, 90)
    assert all(set(order[at : at + 3]) == {"a", "b", "c"} for at in range(0, 90, 3))


def test_an_idle_model_earns_no_credit(monkeypatch):
    scheduled = Scheduled(monkeypatch, busy=1, idle=1)
    scheduled.made["busy"].submit([0] * 1000)
    scheduled.serve({"busy": 1}, 500)
    scheduled.made["idle"].submit([0] * 100)
    order = scheduled.serve({"busy": 1, "idle": 1}, 20)
    assert order.count("idle") in (10, 11)


def test_a_model_that_comes_after_idle_time_does_not_wait_for_the_credit_of_another(monkeypatch):
    scheduled = Scheduled(monkeypatch, old=1, new=1)
    scheduled.made["old"].submit([0] * 500)
    scheduled.serve({"old": 1}, 500)  # now all are idle
    scheduled.made["new"].submit([0] * 100)
    scheduled.made["old"].submit([0] * 100)
    assert scheduled.serve({"old": 1, "new": 1}, 20).count("old") in (9, 10)


@pytest.mark.parametrize(
    ("seconds", "other", "lanes", "sizes"),
    [
        (0.15, 0.01, 1, [8, 3, 3, 8]),
        (0.1, 0.01, 2, [8, 2, 2, 8]),
        (9, 0.01, 1, [8, 1, 1, 8]),
        (9, 9, 1, [8, 4, 4, 8]),
        (9, 99, 1, [8] * 4),
        (0, 0.01, 1, [8] * 4),
    ],
)
def test_calls_are_short_while_another_model_is_in_use(monkeypatch, seconds, other, lanes, sizes):
    scheduled = Scheduled(monkeypatch, batch=8, cost=seconds, flooded=lanes, other=lanes)
    scheduled.made["flooded"].submit([0] * 100)
    scheduled.made["other"].cost = Known(other)

    def size():
        name, begun = scheduled.begin()
        scheduled.now += 1
        scheduled.shared._end(begun)
        return name, len(begun.jobs)

    found = [size()]
    scheduled.made["other"].submit([0])
    found += [size(), size(), size()]
    scheduled.now += 60
    found.append(size())
    assert [items for name, items in found if name == "flooded"] == sizes
    assert ("other", 1) in found


def test_one_image_of_each_of_two_models_gets_one_lane_each(monkeypatch):
    scheduled = Scheduled(monkeypatch, a=2, b=2)
    for one in scheduled.made.values():
        one.submit([0])
    began = [scheduled.begin(), scheduled.begin()]
    assert [(name, begun.own_lanes) for name, begun in began] == [("a", 1), ("b", 1)]


def test_a_model_with_one_lane_runs_alone_and_its_turn_comes(monkeypatch):
    scheduled = Scheduled(monkeypatch, wide=1, narrow=2)
    scheduled.made["narrow"].submit([0] * 100)
    (_, first), (_, second) = scheduled.begin(), scheduled.begin()
    assert (first.lanes, second.lanes) == (1, 1)
    scheduled.made["wide"].submit([0] * 2)
    scheduled.now += 1
    scheduled.shared._end(first)
    assert scheduled.begin() == (None, None)  # the free lane is kept for the model that is next
    scheduled.shared._end(second)
    name, begun = scheduled.begin()
    assert (name, begun.lanes, begun.own_lanes) == ("wide", 2, 1)
    assert scheduled.begin() == (None, None)


@pytest.mark.parametrize(("lanes", "most"), [(1, 1), (2, 2), (3, 2), (4, 4)])
def test_no_more_calls_run_at_once_than_a_model_allows(monkeypatch, lanes, most):
    scheduled = Scheduled(monkeypatch, some=lanes, other=4)
    scheduled.made["some"].submit([0] * 100)
    calls = 0
    while scheduled.begin()[0]:
        calls += 1
    assert calls == most


def test_single_images_run_on_the_same_thread(make_batcher, gate):
    """Each thread that computes on several processors has a pool of workers of its own."""
    gate.let.release(50)
    threads = []

    def infer(items, lanes):
        threads.append(threading.get_ident())
        return gate(items, lanes)

    batcher = make_batcher(infer, lanes=4)
    for item in range(50):
        assert results(batcher.submit([item])) == [2 * item]
    assert len(set(threads)) == 1
    assert gate.lanes == [4] * 50


def test_two_calls_on_several_lanes_each_run_at_once(make_batcher, gate):
    batcher = make_batcher(lanes=4, max_batch_size=1)
    for _ in range(20):
        jobs = batcher.submit([1, 2])
        assert gate.entered.acquire(timeout=10)
        assert gate.entered.acquire(timeout=10)  # before the first has ended
        gate.let.release(2)
        assert results(jobs) == [2, 4]
    assert gate.lanes == [2] * 40


def test_the_backlog_of_a_model_is_its_own_and_as_much_of_each_other(make_batcher, gate):
    few, many = (make_batcher(max_queue=99, max_batch_size=1, cost=Known(1)) for _ in range(2))
    few.submit([0])
    gate.entered.acquire(timeout=10)
    few.submit([0] * 2)
    many.submit([0] * 10)
    assert few.backlog_s == 1 + 2 + 2
    assert many.backlog_s == 1 + 10 + 2


def test_a_model_with_more_lanes_adds_threads(make_batcher, gate, shared):
    make_batcher()
    assert shared.count == 1
    make_batcher(lanes=3).submit([1])
    assert gate.entered.acquire(timeout=10)
    assert shared.count == len(shared._threads) == 3
    assert gate.lanes == [3]
    assert shared.alive


def test_closing_a_model_leaves_the_threads_to_the_others(make_batcher, gate, shared):
    other = Gate()
    closing, stays = make_batcher(), make_batcher(other)
    running = closing.submit([1])
    gate.entered.acquire(timeout=10)
    waiting, served = closing.submit([2]), stays.submit([3])
    closer = threading.Thread(target=closing.close)
    closer.start()
    wait_until(lambda: not closing.alive)
    assert closer.is_alive()
    gate.let.release()
    closer.join(10)
    assert results(running) == [2]
    with pytest.raises(InferenceFailed):
        results(waiting)
    other.let.release(10)
    assert results(served) == [6]
    assert stays.alive
    assert gate.batches == [[1]]


def test_a_closed_model_is_freed_while_others_run(make_batcher, gate, shared):
    class Network:
        def __call__(self, items, lanes):
            return items

    make_batcher()
    network = Network()
    freed = weakref.ref(network)
    batcher = Batcher(shared, network, max_batch_size=1, max_queue=1)
    results(batcher.submit([1]))
    batcher.close()
    del network, batcher
    gc.collect()
    assert freed() is None


def test_the_threads_end_with_the_last_model_and_start_with_the_next(make_batcher, gate, shared):
    before = set(threading.enumerate())
    make_batcher(lanes=2).close()
    assert set(threading.enumerate()) == before
    gate.let.release(10)
    assert results(make_batcher(lanes=2).submit([1])) == [2]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_a_thread_ends_the_items_of_all_models_fail(make_batcher, shared):
    def ends(items, lanes):
        assert waits.wait(10)
        raise SystemExit

    waits = threading.Event()
    running = make_batcher(ends).submit([1])
    wait_until(lambda: shared.busy_s)
    other = make_batcher()
    waiting = other.submit([1])
    waits.set()
    for jobs in (running, waiting):
        with pytest.raises(InferenceFailed, match="has stopped"):
            results(jobs)
    assert not other.alive
