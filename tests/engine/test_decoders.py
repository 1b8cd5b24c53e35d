"""Requests take turns at the decoders."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from math import inf
from time import monotonic

import pytest
from PIL import Image

from leaving import gone
from pictures import encode, picture
from predictor.engine.call import Call
from predictor.engine.decoders import Decoders
from predictor.engine.turns import Turns
from predictor.errors import ClientGone, DamagedImage, DeadlineExceeded, Overloaded
from predictor.settings import Settings
from waiting import wait_until


@contextmanager
def waiters(turns, *bodies):
    """Threads that join the queue one after the other, in this order."""
    threads = []
    for number, body in enumerate(bodies, 1):
        threads.append(threading.Thread(target=body, daemon=True))
        threads[-1].start()
        wait_until(lambda number=number: turns.waiting == number)
    yield
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def take(turns, call, done, name):
    with turns.take(call):
        done.append(name)


def test_turns_are_given_in_the_order_of_arrival():
    turns, done = Turns(1, inf), []
    bodies = [lambda n=n: take(turns, Call(), done, n) for n in range(8)]
    holder = turns.take(Call())
    holder.__enter__()
    with waiters(turns, *bodies):
        holder.__exit__(None, None, None)
    assert done == list(range(8))
    assert turns.waiting == 0


def test_a_request_of_many_images_delays_others_by_one_image():
    turns, done = Turns(1, inf), []

    def many():
        for _ in range(20):
            take(turns, Call(), done, "many")

    holder = turns.take(Call())
    holder.__enter__()
    with waiters(turns, many, many, lambda: take(turns, Call(), done, "one")):
        holder.__exit__(None, None, None)
    assert done.index("one") == 2
    assert len(done) == 41


def test_as_many_images_as_decoders_are_decoded_at_once():
    turns, done = Turns(2, inf), []
    with turns.take(Call()), turns.take(Call()):
        with pytest.raises(DeadlineExceeded), turns.take(Call(deadline=monotonic() + 0.02)):
            pass
        assert turns.waiting == 0
    take(turns, Call(), done, 1)
    assert done == [1]


def test_after_the_deadline_a_free_decoder_is_not_taken():
    turns = Turns(1, inf)
    with pytest.raises(DeadlineExceeded), turns.take(Call(deadline=monotonic())):
        pytest.fail("It was taken.")


def test_a_client_that_has_left_gets_no_turn():
    turns = Turns(1, inf)
    with pytest.raises(ClientGone), turns.take(gone()):
        pytest.fail("It was taken.")


def test_a_client_that_leaves_the_queue_is_noticed_while_it_waits():
    turns, call, done = Turns(1, inf), Call(), []

    def leave():
        with pytest.raises(ClientGone), turns.take(call):
            done.append("decoded")

    with turns.take(Call()), waiters(turns, leave):
        call.left.set_result(None)
        wait_until(lambda: turns.waiting == 0)
    assert done == []


def test_a_turn_that_comes_too_late_goes_to_the_next():
    turns, done, call = Turns(1, inf), [], Call()

    def leave():
        with pytest.raises(ClientGone), turns.take(call):
            done.append("left")

    holder = turns.take(Call())
    holder.__enter__()
    with waiters(turns, leave, lambda: take(turns, Call(), done, "next")):
        call.left.set_result(None)
        holder.__exit__(None, None, None)
    assert done == ["next"]
    take(turns, Call(), done, "later")


def test_a_failed_image_gives_its_decoder_back():
    turns = Turns(1, inf)
    with pytest.raises(KeyError), turns.take(Call()):
        raise KeyError
    take(turns, Call(), [], 1)


def test_a_long_queue_refuses_further_images_and_says_when_to_retry():
    turns = Turns(1, most_s=3)
    turns._cost.seconds = 4.0
    holder = turns.take(Call())
    holder.__enter__()
    with waiters(turns, lambda: take(turns, Call(), [], 1)):
        assert (turns.backlog_s, turns.full) == (4, True)
        with pytest.raises(Overloaded, match="1 requests are wait") as refused, turns.take(Call()):
            pytest.fail("It was taken.")
        assert refused.value.retry_after_s == 4
        holder.__exit__(None, None, None)
    assert not turns.full


def test_dear_images_and_those_decoded_apart_leave_slots_to_others():
    decoders = Decoders(1, Settings(max_in_flight=128))
    for turns, most in ((decoders.dear, 32), (decoders.apart, 64)):
        assert turns._join(0.0) is None
        assert all(turns._join(0.0) for _ in range(most))
        with pytest.raises(Overloaded, match=f"{most} requests are waiting"):
            turns._join(0.0)


def test_in_a_full_queue_the_image_that_has_paid_least_gives_way():
    turns, done = Turns(1, inf, 2), []

    def refused():
        with pytest.raises(Overloaded, match="2 requests are waiting"), turns.take(Call(), 0.2, 34):
            pytest.fail("It was decoded.")
        done.append("refused")

    def photo():
        with turns.take(Call(), 0.4, 10**6):
            done.append("photo")

    holder = turns.take(Call())
    holder.__enter__()
    with waiters(turns, photo, refused):
        with pytest.raises(Overloaded), turns.take(Call(), 0.2, 34):
            pytest.fail("It is no better than what waits.")
        late = threading.Thread(target=photo)
        late.start()
        wait_until(lambda: done == ["refused"])
        assert turns.waiting == 2
        holder.__exit__(None, None, None)
    late.join(10)
    assert done == ["refused", "photo", "photo"]
    take(turns, Call(), done, "no decoder was lost")


def test_images_of_many_bytes_for_their_seconds_go_first():
    turns, done = Turns(1, inf), []

    def take(expected_s, size):
        with turns.take(Call(), expected_s, size):
            done.append(size)

    holder = turns.take(Call())
    holder.__enter__()
    bodies = [(0.2, 7_000), (0.1, 38), (1.0, 30_000_000), (0.0, 0)]
    with waiters(turns, *(lambda body=body: take(*body) for body in bodies)):
        holder.__exit__(None, None, None)
    assert done == [0, 30_000_000, 7_000, 38]


@pytest.mark.parametrize("failures", [0, 20])
def test_images_are_refused_by_what_they_are_expected_to_take(failures):
    """Also if none was decoded before, or damaged ones that were quick."""
    turns = Turns(1, most_s=10)
    for _ in range(failures):
        with suppress(DamagedImage), turns.take(Call(), 4.0):
            raise DamagedImage("It is damaged.")

    def take():
        with turns.take(Call(), 4.0):
            pass

    holder = turns.take(Call(), 4.0)
    holder.__enter__()
    with waiters(turns, take, take, take):
        with pytest.raises(Overloaded) as refused, turns.take(Call(), 4.0):
            pytest.fail("It was taken.")
        assert refused.value.retry_after_s == 12
        holder.__exit__(None, None, None)
    assert turns.backlog_s == 0


def test_many_threads_never_hold_more_than_the_decoders():
    turns, now, most = Turns(2, inf), [], []

    def work():
        for _ in range(50):
            with turns.take(Call()):
                now.append(1)
                most.append(len(now))
                now.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert max(most) <= 2
    assert len(most) == 400


def test_in_a_full_lane_an_image_of_many_bytes_gets_a_place_before_its_header_is_read():
    tiff = encode(Image.new("RGB", (99, 99)), "TIFF")
    decoders = Decoders(1, Settings(max_in_flight=32))
    decoders, tiff = (
        Decoders(1, Settings(max_in_flight=32)),
        encode(Image.new("RGB", (99, 99)), "TIFF"),
    )
    assert decoders.apart._join(0.0, 500) is None
    small = [decoders.apart._join(0.0, 500) for _ in range(16)]
    with pytest.raises(Overloaded):
        decoders.apart._join(0.0, 500)
    with ThreadPoolExecutor(1) as pool:
        decoded = pool.submit(decoders.decode, tiff, Call(), None, lambda image: image.size)
        wait_until(lambda: any(turn.refused for turn in small))
        for _ in small:
            decoders.apart._pass_on()
        assert decoded.result(60) == (99, 99)


def test_an_image_of_a_lane_does_not_wait_longer_for_a_decoder_too():
    """The others of its lane would wait as long."""
    decoders, done = Decoders(1, Settings()), []

    def apart():
        with decoders._turn(decoders.apart, Call(), 0.09, 100):
            done.append("apart")

    holder = decoders.turns.take(Call())
    holder.__enter__()
    with waiters(decoders.turns, apart, lambda: take(decoders.turns, Call(), done, "photo")):
        holder.__exit__(None, None, None)
    assert done == ["apart", "photo"]


def test_images_that_are_decoded_apart_leave_a_decoder_to_others():
    """Their estimates may be wrong, and a request for a photo must not wait for many of them."""
    decoders, tiff = Decoders(2, Settings()), encode(Image.new("RGB", (8, 6)), "TIFF")

    def decode(data):
        return decoders.decode(data, Call(), None, lambda image: image.size)

    with ThreadPoolExecutor(4) as pool:
        with decoders.apart.take(Call()):
            futures = [pool.submit(decode, tiff) for _ in range(3)]
            wait_until(lambda: decoders.apart.waiting == 3)
            assert decoders.waiting == 3
            assert decoders.turns._free == 2
            assert decode(picture()) == (32, 24)
        assert [future.result(60) for future in futures] == [(8, 6)] * 3
