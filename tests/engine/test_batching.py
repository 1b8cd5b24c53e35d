import threading
from time import monotonic

import pytest

from predictor.engine.batching import Batcher
from predictor.errors import DeadlineExceeded, InferenceFailed, Overloaded
from waiting import wait_until


class Gate:
    """Doubles numbers, batch by batch, when let; remembers what it was given."""

    def __init__(self):
        self.batches, self.lanes = [], []
        self.entered = threading.Semaphore(0)
        self.let = threading.Semaphore(0)

    def __call__(self, items, lanes):
        self.batches.append(list(items))
        self.lanes.append(lanes)
        self.entered.release()
        assert self.let.acquire(timeout=10)
        if "bad" in items:
            raise RuntimeError("a bad item")
        return [item * 2 for item in items]


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


def results(futures):
    return [future.result(timeout=10) for future in futures]


def test_an_item_alone_runs_at_once(gate, make_batcher):
    gate.let.release()
    assert results(make_batcher().submit([1])) == [2]


def test_items_that_wait_together_run_together_up_to_the_maximum(gate, make_batcher):
    batcher = make_batcher()
    first = batcher.submit([0])
    gate.entered.acquire(timeout=10)
    waiting = [future for i in range(1, 7) for future in batcher.submit([i])]
    gate.let.release(10)
    assert results(first + waiting) == [0, 2, 4, 6, 8, 10, 12]
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_without_a_delay_nobody_waits_for_company(gate, make_batcher):
    gate.let.release(2)
    batcher = make_batcher()
    assert results(batcher.submit([1])) + results(batcher.submit([2])) == [2, 4]
    assert gate.batches == [[1], [2]]


def test_with_a_delay_a_batch_fills(gate, make_batcher):
    gate.let.release(2)
    batcher = make_batcher(max_delay_s=10)
    futures = [future for i in range(4) for future in batcher.submit([i])]
    assert results(futures) == [0, 2, 4, 6]
    assert gate.batches == [[0, 1, 2, 3]]


def test_a_delay_ends_though_the_batch_is_not_full(gate, make_batcher):
    gate.let.release()
    assert results(make_batcher(max_delay_s=0.01).submit([1, 2])) == [2, 4]


def test_a_full_queue_refuses_at_once_and_takes_all_of_a_request_or_none(gate, make_batcher):
    batcher = make_batcher(max_queue=3)
    first = batcher.submit([0])
    gate.entered.acquire(timeout=10)
    waiting = batcher.submit([1, 2])
    with pytest.raises(Overloaded):
        batcher.submit([3, 4])
    waiting += batcher.submit([5])
    gate.let.release(10)
    assert results(first + waiting) == [0, 2, 4, 10]


def test_who_gave_up_is_skipped_and_leaves_the_place_to_others(gate, make_batcher):
    batcher = make_batcher(max_queue=2)
    batcher.submit([0])
    gate.entered.acquire(timeout=10)
    gone, stays = batcher.submit([1, 2])
    assert gone.cancel()
    assert batcher.waiting == 1
    (new,) = batcher.submit([3])
    gate.let.release(10)
    assert results([stays, new]) == [4, 6]
    assert gate.batches == [[0], [2, 3]]


def test_a_failing_item_fails_alone(gate, make_batcher):
    batcher = make_batcher()
    batcher.submit([0])
    gate.entered.acquire(timeout=10)
    one, bad, two, three = batcher.submit(["a", "bad", "b", "c"])
    gate.let.release(20)
    assert results([one, two, three]) == ["aa", "bb", "cc"]
    with pytest.raises(RuntimeError, match="a bad item"):
        bad.result(timeout=10)


def test_a_model_that_loses_results_is_an_error_and_not_a_mix_up():
    batcher = Batcher(lambda items, _: items[:-1], max_batch_size=2, max_queue=2)
    with pytest.raises(ValueError, match="1 items gave 0 results"):
        results(batcher.submit([1]))
    batcher.close()


def test_everything_is_computed_by_threads_that_live_as_long_as_the_batcher():
    def infer(items, _shares):
        return [threading.get_ident()] * len(items)

    batcher = Batcher(infer, max_batch_size=1, max_queue=100, lanes=2)
    threads = set(results(future for _ in range(50) for future in batcher.submit([0])))
    assert len(threads) <= 2
    assert threading.get_ident() not in threads
    batcher.close()


def test_an_item_alone_is_given_everything(gate, make_batcher):
    gate.let.release(2)
    batcher = make_batcher(lanes=4)
    results(batcher.submit([1]))
    results(batcher.submit([2]))
    assert gate.lanes == [4, 4]


@pytest.mark.parametrize(
    ("count", "sizes", "lanes"),
    [
        (2, [1, 1], [2, 2]),
        (3, [1, 1, 1], [1, 1, 2]),
        (5, [1, 1, 1, 2], [1, 1, 1, 1]),
        (8, [2] * 4, [1] * 4),
    ],
)
def test_what_waits_together_is_split_evenly_side_by_side(gate, make_batcher, count, sizes, lanes):
    batcher = make_batcher(lanes=4)
    futures = batcher.submit(list(range(count)))
    for _ in sizes:
        assert gate.entered.acquire(timeout=10)
    gate.let.release(len(sizes))
    assert results(futures) == [2 * i for i in range(count)]
    assert sorted(map(len, gate.batches)) == sizes
    assert sorted(gate.lanes) == lanes


def test_whoever_comes_while_all_is_given_away_waits_for_a_share(gate, make_batcher):
    batcher = make_batcher(lanes=2)
    first = batcher.submit([1])
    gate.entered.acquire(timeout=10)
    second = batcher.submit([2])
    assert gate.batches == [[1]]
    gate.let.release(2)
    assert results(first + second) == [2, 4]
    assert gate.lanes == [2, 2]


def test_a_failing_call_gives_its_share_back(gate, make_batcher):
    batcher = make_batcher(lanes=2)
    gate.let.release(10)
    with pytest.raises(RuntimeError):
        results(batcher.submit(["bad"]))
    assert results(batcher.submit([1])) == [2]
    assert gate.lanes[-1] == 2


def test_busy_time_is_that_of_the_call_in_work(gate, make_batcher):
    batcher = make_batcher()
    assert batcher.busy_s == 0
    (future,) = batcher.submit([1])
    gate.entered.acquire(timeout=10)
    assert batcher.busy_s > 0
    gate.let.release()
    future.result(timeout=10)
    assert batcher.alive


def test_when_the_thread_dies_nobody_waits_for_ever(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    dies = threading.Event()

    def infer(items, _shares):
        dies.wait(10)
        raise SystemExit  # no Exception: nothing in the thread catches it

    batcher = Batcher(infer, max_batch_size=1, max_queue=4)
    _, waiting = batcher.submit([1, 2])
    dies.set()
    with pytest.raises(InferenceFailed):
        waiting.result(timeout=10)
    with pytest.raises(InferenceFailed):
        batcher.submit([3])
    batcher.close()
    assert not batcher.alive


def test_closing_fails_what_waits_and_finishes_what_runs(gate, make_batcher):
    batcher = make_batcher(max_batch_size=1)
    running, waiting = batcher.submit([1, 2])
    gate.entered.acquire(timeout=10)
    closer = threading.Thread(target=batcher.close)
    closer.start()
    wait_until(lambda: not batcher.alive)
    gate.let.release()
    assert running.result(timeout=10) == 2
    with pytest.raises(InferenceFailed):
        waiting.result(timeout=10)
    closer.join(10)


def test_who_is_refused_learns_how_long_the_backlog_takes(gate, make_batcher):
    batcher = make_batcher(max_queue=2, max_batch_size=1)
    assert batcher.backlog_s == 0
    first = batcher.submit([0])
    gate.let.release()
    assert results(first) == [0]
    batcher._item_s = 3.0  # what the last call took, had it been a large model
    batcher.submit([1])
    wait_until(lambda: batcher.waiting == 0)
    batcher.submit([2, 3])
    assert batcher.backlog_s == 9
    with pytest.raises(Overloaded) as refusal:
        batcher.submit([4])
    assert refusal.value.retry_after_s == 9


def test_what_cannot_be_done_in_time_is_refused_unless_nothing_waits(gate, make_batcher):
    batcher = make_batcher(max_batch_size=1)
    batcher.submit([0])
    gate.entered.acquire(timeout=10)
    batcher._item_s = 1000.0  # also after the call in work has been learnt from
    soon = monotonic() + 50
    late = batcher.submit([1], soon)  # nothing waits: it is taken, and then not begun
    gate.let.release()
    with pytest.raises(DeadlineExceeded):
        results(late)
    assert gate.batches == [[0]]

    batcher.submit([2])
    gate.entered.acquire(timeout=10)
    batcher._item_s = 100.0
    batcher.submit([3])
    with pytest.raises(Overloaded, match="not be done in time"):
        batcher.submit([4], monotonic() + 50)


def test_one_slow_call_does_not_end_all_service(gate, make_batcher):
    batcher = make_batcher()
    batcher._item_s = 1e6
    gate.let.release(10)
    assert results(batcher.submit([1])) == [2]
    assert batcher._item_s < 1e6


def test_after_a_slow_call_service_begins_again_also_with_deadlines(gate, make_batcher):
    batcher = make_batcher()
    batcher._item_s = 100.0  # of one call, long ago; each has 50 s
    gate.let.release(10)
    outcomes = []
    while outcomes[-1:] != [[2]]:
        try:
            outcomes.append(results(batcher.submit([1], monotonic() + 50)))
        except DeadlineExceeded:
            outcomes.append("late")
    assert 1 < len(outcomes) < 10


def test_what_hangs_is_answered_when_it_is_abandoned(gate, make_batcher):
    batcher = make_batcher(max_batch_size=1)
    hanging, waiting = batcher.submit([1]), batcher.submit([2])
    gate.entered.acquire(timeout=10)
    batcher.abandon()
    for future in (*hanging, *waiting):
        with pytest.raises(InferenceFailed, match="hangs"):
            future.result(timeout=10)
    assert not batcher.alive
    with pytest.raises(InferenceFailed):
        batcher.submit([3])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_in_a_call_leaves_nobody_waiting():
    def infer(items, _shares):
        raise SystemExit

    batcher = Batcher(infer, max_batch_size=1, max_queue=4)
    with pytest.raises(InferenceFailed, match="has stopped"):
        batcher.submit([1])[0].result(timeout=10)
    batcher.close()
