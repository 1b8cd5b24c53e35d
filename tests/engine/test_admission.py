import threading
from time import monotonic

import pytest

from predictor.engine.admission import Places
from predictor.errors import Overloaded


def test_there_are_so_many_places_and_they_come_back():
    places = Places(2)
    with places.take(), places.take():
        assert places.held == 2
        with (
            pytest.raises(Overloaded, match="All 2 places") as refused,
            places.take(lambda: 4.2),
        ):
            pass
        assert refused.value.retry_after_s == 5
    assert places.held == 0


def test_a_place_comes_back_also_when_its_work_fails():
    places = Places(1)
    with pytest.raises(KeyError), places.take():
        raise KeyError
    with places.take():
        assert places.held == 1


def test_where_nothing_was_ever_in_work_it_is_quiet_at_once():
    assert Places(1).wait_until_idle(3600, timeout_s=0)


def test_while_a_place_is_taken_it_is_not_quiet():
    places = Places(1)
    with places.take():
        assert not places.wait_until_idle(0, timeout_s=0.01)


def test_it_is_quiet_only_some_time_after_the_last_has_gone():
    places = Places(1)
    with places.take():
        pass
    assert not places.wait_until_idle(60, timeout_s=0)
    began = monotonic()
    assert places.wait_until_idle(0.05, timeout_s=60)
    assert monotonic() - began > 0.02


def test_who_waits_is_woken_when_the_last_has_gone():
    places, quiet = Places(1), threading.Event()
    waiter = threading.Thread(target=lambda: places.wait_until_idle(0, 60) and quiet.set())
    with places.take():
        waiter.start()
        assert not quiet.wait(0.05)
    assert quiet.wait(10)
    waiter.join()
