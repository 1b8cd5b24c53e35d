import threading
from math import inf

import pytest

from engine.gate import results
from predictor.engine.batching import Batcher
from predictor.engine.lanes import Lanes
from predictor.errors import InferenceFailed, Overloaded
from waiting import wait_until


def test_a_single_item_runs_at_once(gate, make_batcher):
    gate.let.release()
    assert results(make_batcher().submit([1])) == [2]


def test_waiting_items_run_together_up_to_the_batch_size(gate, make_batcher):
    batcher = make_batcher()
    first = batcher.submit([0])
    gate.entered.acquire(timeout=10)
    waiting = [job for i in range(1, 7) for job in batcher.submit([i])]
    gate.let.release(10)
    assert results(first + waiting) == [0, 2, 4, 6, 8, 10, 12]
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]


@pytest.fixture
def gives_way(monkeypatch):
    """Let each item of a request give way for 10 s, also on a busy machine."""
    monkeypatch.setattr("predictor.engine.batching.GIVES_WAY_S", 10)
    monkeypatch.setattr("predictor.engine.batching.LESS_FROM_S", 1000)


@pytest.mark.usefixtures("gives_way")
def test_the_items_of_a_large_request_give_way_to_other_requests(gate, make_batcher):
    batcher = make_batcher(max_queue=20)
    first = batcher.submit([0])
    gate.entered.acquire(timeout=10)
    jobs = batcher.submit([*range(1, 9)]) + batcher.submit([10]) + batcher.submit([20, 21])
    gate.let.release(10)
    results(first + jobs)
    assert gate.batches == [[0], [1, 10, 20, 2], [21, 3, 4, 5], [6, 7, 8]]


def test_no_item_gives_way_for_long_and_few_fall_due_at_once(gate, make_batcher):
    batcher = make_batcher(max_queue=100)
    first = batcher.submit([0])
    gate.entered.acquire(timeout=10)
    waiting = batcher.submit(list(range(64)))
    due = [job.turn - waiting[0].submitted for job in batcher.queue]
    gate.let.release(100)
    results(first + waiting)
    assert due[-1] < 25
    assert max(sum(second <= one < second + 1 for one in due) for second in range(25)) <= 5


def test_without_a_delay_an_item_does_not_wait_for_others(gate, make_batcher):
    gate.let.release(2)
    batcher = make_batcher()
    assert results(batcher.submit([1])) + results(batcher.submit([2])) == [2, 4]
    assert gate.batches == [[1], [2]]


def test_with_a_delay_a_batch_fills(gate, make_batcher):
    gate.let.release(2)
    batcher = make_batcher(max_delay_s=10)
    jobs = [job for i in range(4) for job in batcher.submit([i])]
    assert results(jobs) == [0, 2, 4, 6]
    assert gate.batches == [[0, 1, 2, 3]]


def test_a_batch_that_is_not_full_runs_when_the_delay_ends(gate, make_batcher):
    gate.let.release()
    assert results(make_batcher(max_delay_s=0.01).submit([1, 2])) == [2, 4]


@pytest.mark.usefixtures("gives_way")
def test_a_request_behind_a_full_queue_is_refused_and_one_that_comes_before_it_is_not(
    gate, make_batcher
):
    batcher = make_batcher(max_queue=2)
    first = batcher.submit([0])
    gate.entered.acquire(timeout=10)
    waiting = batcher.submit([1, 2])
    with pytest.raises(Overloaded, match="2 images are waiting"):
        batcher.submit([3, 4])
    waiting += batcher.submit([5])  # 2 gives way to it
    with pytest.raises(Overloaded, match="2 images are waiting"):
        batcher.submit([6])
    gate.let.release(10)
    assert results(first + waiting) == [0, 2, 4, 10]


def test_the_largest_request_needs_no_empty_queue(gate, make_batcher):
    """Its images have been decoded by then."""
    batcher = make_batcher(max_queue=3)
    first = batcher.submit([0])
    gate.entered.acquire(timeout=10)
    waiting = batcher.submit([1]) + batcher.submit([2, 3, 4])
    gate.let.release(10)
    assert results(first + waiting) == [0, 2, 4, 6, 8]


def test_a_request_of_few_items_may_wait_behind_more_than_one_of_many(gate, make_batcher):
    batcher = make_batcher(max_queue=4)
    first = batcher.submit([0])
    gate.entered.acquire(timeout=10)
    waiting = batcher.submit([1, 2, 3, 4])
    with pytest.raises(Overloaded, match="4 images are waiting"):
        batcher.submit([5, 6, 7, 8])
    waiting += batcher.submit([5, 6]) + batcher.submit([7, 8])
    with pytest.raises(Overloaded, match="6 images are waiting"):
        batcher.check(2, inf)  # as before their images are decoded
    gate.let.release(10)
    assert results(first + waiting) == [0, 2, 4, 6, 8, 10, 12, 14, 16]


def test_a_cancelled_item_is_not_run_and_makes_room_in_the_queue(gate, make_batcher):
    batcher = make_batcher(max_queue=2)
    batcher.submit([0])
    gate.entered.acquire(timeout=10)
    cancelled, stays = batcher.submit([1, 2])
    assert cancelled.future.cancel()
    assert batcher.waiting == 1
    (new,) = batcher.submit([3])
    gate.let.release(10)
    assert results([stays, new]) == [4, 6]
    assert gate.batches == [[0], [3, 2]]


def test_a_failing_item_does_not_fail_its_batch(gate, make_batcher):
    batcher = make_batcher()
    batcher.submit([0])
    gate.entered.acquire(timeout=10)
    one, bad, two, three = batcher.submit(["a", "bad", "b", "c"])
    gate.let.release(20)
    assert results([one, two, three]) == ["aa", "bb", "cc"]
    with pytest.raises(RuntimeError, match="a bad item"):
        results([bad])


def test_a_wrong_number_of_results_is_an_error():
    batcher = Batcher(Lanes(), lambda items, _: items[:-1], max_batch_size=2, max_queue=2)
    with pytest.raises(ValueError, match="1 items gave 0 results"):
        results(batcher.submit([1]))
    batcher.close()


def test_all_calls_run_on_the_batchers_own_threads():
    def infer(items, _lanes):
        return [threading.get_ident()] * len(items)

    batcher = Batcher(Lanes(), infer, max_batch_size=1, max_queue=100, lanes=2)
    threads = set(results(job for _ in range(50) for job in batcher.submit([0])))
    assert len(threads) <= 2
    assert threading.get_ident() not in threads
    batcher.close()


def test_a_single_item_gets_all_lanes(gate, make_batcher):
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
def test_waiting_items_are_split_evenly_among_the_lanes(gate, make_batcher, count, sizes, lanes):
    batcher = make_batcher(lanes=4)
    jobs = batcher.submit(list(range(count)))
    for _ in sizes:
        assert gate.entered.acquire(timeout=10)
    gate.let.release(len(sizes))
    assert results(jobs) == [2 * i for i in range(count)]
    assert sorted(map(len, gate.batches)) == sizes
    assert sorted(gate.lanes) == lanes


def test_an_item_waits_while_no_lane_is_free(gate, make_batcher):
    batcher = make_batcher(lanes=2)
    first = batcher.submit([1])
    gate.entered.acquire(timeout=10)
    second = batcher.submit([2])
    assert gate.batches == [[1]]
    gate.let.release(2)
    assert results(first + second) == [2, 4]
    assert gate.lanes == [2, 2]


def test_a_failing_call_frees_its_lanes(gate, make_batcher):
    batcher = make_batcher(lanes=2)
    gate.let.release(10)
    with pytest.raises(RuntimeError):
        results(batcher.submit(["bad"]))
    assert results(batcher.submit([1])) == [2]
    assert gate.lanes[-1] == 2


def test_busy_time_is_that_of_the_running_call(gate, make_batcher, shared):
    batcher = make_batcher()
    assert shared.busy_s == 0
    jobs = batcher.submit([1])
    gate.entered.acquire(timeout=10)
    assert shared.busy_s > 0
    gate.let.release()
    results(jobs)
    assert batcher.alive


def test_when_a_thread_ends_waiting_items_fail(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    ends = threading.Event()

    def infer(items, _lanes):
        ends.wait(10)
        raise SystemExit  # not an Exception: nothing in the thread catches it

    batcher = Batcher(Lanes(), infer, max_batch_size=1, max_queue=4)
    _, waiting = batcher.submit([1, 2])
    ends.set()
    with pytest.raises(InferenceFailed):
        results([waiting])
    with pytest.raises(InferenceFailed):
        batcher.submit([3])
    batcher.close()
    assert not batcher.alive


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_a_thread_ends_its_running_items_fail():
    def infer(items, _lanes):
        raise SystemExit

    batcher = Batcher(Lanes(), infer, max_batch_size=1, max_queue=4)
    with pytest.raises(InferenceFailed, match="has stopped"):
        results(batcher.submit([1]))
    batcher.close()


def test_close_finishes_the_running_call_and_fails_the_rest(gate, make_batcher):
    batcher = make_batcher(max_batch_size=1)
    running, waiting = batcher.submit([1, 2])
    gate.entered.acquire(timeout=10)
    closer = threading.Thread(target=batcher.close)
    closer.start()
    wait_until(lambda: not batcher.alive)
    gate.let.release()
    assert results([running]) == [2]
    with pytest.raises(InferenceFailed):
        results([waiting])
    closer.join(10)


def test_abandon_fails_waiting_items_and_those_of_a_hanging_call(gate, make_batcher, shared):
    batcher = make_batcher(max_batch_size=1)
    hanging, waiting = batcher.submit([1]), batcher.submit([2])
    gate.entered.acquire(timeout=10)
    shared.abandon()
    for job in (*hanging, *waiting):
        with pytest.raises(InferenceFailed, match="hangs"):
            results([job])
    assert not batcher.alive
    with pytest.raises(InferenceFailed):
        batcher.submit([3])
