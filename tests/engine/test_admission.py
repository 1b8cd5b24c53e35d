import threading
from time import monotonic

import pytest

from pictures import picture
from predictor.engine.admission import Process, Slots
from predictor.errors import Overloaded
from predictor.settings import Settings


def test_a_request_over_the_limit_is_refused():
    slots = Slots(2)
    with slots.hold(), slots.hold():
        assert slots.held == 2
        with pytest.raises(Overloaded, match="limit of 2 requests") as refused, slots.hold():
            pass
        assert refused.value.retry_after_s == Overloaded.retry_after_s
    assert slots.held == 0


def test_a_refusal_says_when_to_retry():
    slots = Slots(1)
    slots.retry_after_s = lambda: 4.2
    with slots.hold(), pytest.raises(Overloaded) as refused:
        slots.take()
    assert refused.value.retry_after_s == 5


def test_one_model_alone_may_hold_all_slots():
    slots = Slots(8)
    for _ in range(8):
        slots.take("a")


def test_no_model_holds_all_slots_while_several_are_served():
    slots = Slots(64)
    slots.is_shared = True
    for model, most in ("a", 48), ("b", 12):
        for _ in range(most):
            slots.take(model)
        with pytest.raises(Overloaded, match="Retry later"):
            slots.take(model)
    slots.take("c")
    slots.release("a")
    slots.release("b")
    slots.take("b")


def test_a_slot_is_freed_when_its_request_fails():
    slots = Slots(1)
    with pytest.raises(KeyError), slots.hold():
        raise KeyError
    with slots.hold():
        assert slots.held == 1


def test_unused_slots_are_idle_from_the_start():
    assert Slots(1).wait_until_idle(3600, timeout_s=0)


def test_slots_are_not_idle_while_one_is_held():
    slots = Slots(1)
    with slots.hold():
        assert not slots.wait_until_idle(0, timeout_s=0.01)


def test_slots_are_idle_some_time_after_the_model_ran_for_the_last_holder():
    slots = Slots(1)
    with slots.hold():
        pass
    assert slots.wait_until_idle(60, timeout_s=0)  # the request was refused
    with slots.hold():
        slots.used_at = monotonic()
    assert not slots.wait_until_idle(60, timeout_s=0)
    began = monotonic()
    assert slots.wait_until_idle(0.05, timeout_s=60)
    assert monotonic() - began > 0.02


def test_a_waiter_wakes_when_the_last_slot_is_freed():
    slots, idle = Slots(1), threading.Event()
    waiter = threading.Thread(target=lambda: slots.wait_until_idle(0, 60) and idle.set())
    with slots.hold():
        waiter.start()
        assert not idle.wait(0.05)
    assert idle.wait(10)
    waiter.join()


def test_a_process_decodes_and_computes_on_its_share_of_the_processors():
    process = Process(Settings(cpus=2))
    held = [process.decoders.turns._join(0.0) for _ in range(3)]
    assert (process.cpus, held[:2], held[2] is None) == (2, [None, None], False)
    assert Process(Settings(cpus=2, torch_threads=1)).cpus == 1


def test_requests_of_several_images_leave_places_to_photos(make_classifier):
    classifier = make_classifier(max_in_flight=2)
    with classifier.process.several.hold():
        with pytest.raises(Overloaded, match="limit of 1 requests with several images"):
            classifier.classify([picture(), picture("blue")])
        assert classifier.classify([picture("blue")])[0][0].class_name == "blue_thing"
    assert len(classifier.classify([picture(), picture("blue")])) == 2


def test_requests_of_many_images_leave_places_to_those_of_few():
    several = Process(Settings()).several
    for _ in range(17):
        several.take(size=1.0)
    with pytest.raises(Overloaded, match="limit of 17 requests with several images"):
        several.take(size=1.0)
    for _ in range(8):
        several.take(size=0.5)
    with pytest.raises(Overloaded):
        several.take(size=0.5)
    for _ in range(7):
        several.take(size=2 / 64)
    with pytest.raises(Overloaded):
        several.take(size=2 / 64)


def test_lists_of_one_model_leave_places_to_those_of_another(make_classifier):
    classifier = make_classifier(max_in_flight=8)
    several = classifier.process.several
    classifier.process.share_slots(True)
    for _ in range(3):
        several.take(classifier.name)
    with pytest.raises(Overloaded, match="limit of 3 requests with several images"):
        classifier.classify([picture(), picture("blue")])
    several.take("another")
