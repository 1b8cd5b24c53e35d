from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic

import pytest

from leaving import gone
from predictor.engine.call import Call, Job, Timings, all_or_error, map_good
from predictor.errors import BadRequest, ClientGone, DamagedImage, DeadlineExceeded, PredictorError
from waiting import wait_until


def test_a_failing_step_is_measured_and_repeats_add_up():
    timings = Timings(read=1.0)
    for step in ("read", "decode"):
        with pytest.raises(ZeroDivisionError), timings.measure(step):
            raise ZeroDivisionError
    assert timings.read >= 1.0
    assert timings.decode >= 0.0
    assert timings.known().keys() == {"read", "decode"}


def test_the_last_image_run_determines_queue_and_inference():
    timings = Timings()
    timings.add_wait(
        [
            Job("a", submitted=0.0, began=5.0, ended=8.0),
            Job("b", submitted=0.0, began=1.0, ended=2.0),
        ]
    )
    assert (timings.queue, timings.inference) == (5.0, 3.0)


def test_the_wait_of_an_abandoned_request_counts_until_now():
    timings = Timings()
    timings.add_wait([Job("a", submitted=0.0)])
    assert timings.queue > 0
    assert timings.inference is None
    timings.add_wait([Job("a", submitted=0.0, began=1.0)])
    assert timings.queue == 1.0
    assert timings.inference > 0


def test_without_images_there_is_no_wait():
    timings = Timings()
    timings.add_wait([])
    assert timings.known() == {}


def test_the_seconds_left_of_a_call_never_fall_below_zero():
    assert Call().seconds_left == float("inf")
    assert 59 < Call(monotonic() + 60).seconds_left <= 60
    assert Call(monotonic() - 60).seconds_left == 0


def test_map_good_runs_the_good_items_and_keeps_positions():
    error, runs = PredictorError("bad"), []

    def double(items):
        runs.append(items)
        return [item * 2 for item in items]

    assert map_good(double, [1, error, 3]) == [2, error, 6]
    assert runs == [[1, 3]]


def test_all_or_error_returns_the_results_if_all_are_good():
    assert all_or_error([1, 2]) == [1, 2]


def test_all_or_error_raises_the_first_error_with_its_number():
    with pytest.raises(DamagedImage, match=r"^Image 2 of 3: It is cut off\.$"):
        all_or_error([1, DamagedImage("It is cut off."), BadRequest("It is empty.")])


def test_all_or_error_does_not_number_a_single_image():
    with pytest.raises(DamagedImage, match=r"^It is cut off\.$"):
        all_or_error([DamagedImage("It is cut off.")])


def test_waiting_for_a_result_ends_at_the_deadline():
    began = monotonic()
    with pytest.raises(DeadlineExceeded):
        Call(began + 0.05).wait(Future())
    assert monotonic() - began < 10


def test_waiting_for_a_result_ends_when_the_client_leaves():
    with pytest.raises(ClientGone):
        gone().wait(Future())


def test_a_client_that_leaves_wakes_the_thread_that_waits():
    call = Call()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call.wait, Future())
        wait_until(lambda: call.left._waiters)
        call.left.set_result(None)
        with pytest.raises(ClientGone):
            waiting.result(timeout=10)


def test_a_result_that_is_there_is_returned_after_the_deadline():
    future = Future()
    future.set_result("b")
    assert gone(monotonic() - 60).wait(future) == "b"
