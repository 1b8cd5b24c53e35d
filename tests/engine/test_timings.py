import pytest
from predictor.engine.timings import Passenger, Timings


def test_a_step_that_fails_is_measured_and_adds_up():
    timings = Timings(read=1.0)
    for step in ("read", "decode"):
        with pytest.raises(ZeroDivisionError), timings.measure(step):
            raise ZeroDivisionError
    assert timings.read >= 1.0
    assert timings.decode >= 0.0
    assert timings.known().keys() == {"read", "decode"}


def test_of_several_images_the_last_one_run_tells_the_wait():
    timings = Timings()
    timings.settle([Passenger("a", 0.0, began=5.0, ended=8.0), Passenger("b", 0.0, 1.0, 2.0)])
    assert (timings.queue, timings.inference) == (5.0, 3.0)


def test_a_wait_that_was_given_up_is_a_wait_too():
    timings = Timings()
    timings.settle([Passenger("a", submitted=0.0)])
    assert timings.queue > 0
    assert timings.inference is None
    timings.settle([Passenger("a", submitted=0.0, began=1.0)])
    assert timings.queue == 1.0
    assert timings.inference > 0


def test_without_images_nobody_waited():
    timings = Timings()
    timings.settle([])
    assert timings.known() == {}
