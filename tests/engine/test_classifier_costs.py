"""What images cost, and what a classifier refuses before it decodes them."""

import gc
import itertools
import weakref
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, thread_time

import pytest
from PIL import Image

from hostile import webp_of_code_groups
from pictures import encode, picture, tiny_webp
from predictor.engine.call import Call
from predictor.engine.decoders import UNEXPECTED_S, Decoders
from predictor.errors import (
    BadRequest,
    ClientGone,
    DamagedImage,
    DeadlineExceeded,
    OutOfTime,
    Overloaded,
    TooCostly,
)
from predictor.images.cost import DEAR_S, FREE_S, LEAST_SENT, Budget
from predictor.images.decoding import decode, decode_here
from predictor.images.limits import check_header
from predictor.settings import Settings
from waiting import wait_until


def estimate_of(data):
    seconds = []
    decode(data, 50_000_000, charge=seconds.append)
    return seconds[0]


@pytest.fixture
def exact(monkeypatch):
    """Let images cost what is estimated: beside other programs they take twice as long."""
    monkeypatch.setattr("predictor.engine.decoders.thread_seconds", lambda: 0.0)


@pytest.mark.usefixtures("exact")
def test_images_that_cost_too_much_are_refused_and_the_others_answered(make_classifier):
    costly = tiny_webp(14)
    images = [costly] * 20 + [picture("blue")]
    *outcomes, blue = make_classifier().classify(images)
    refused = [outcome for outcome in outcomes if isinstance(outcome, TooCostly)]
    assert 17 <= len(refused) < 20
    assert [p.class_name for p in blue] == ["blue_thing"]


def test_images_of_a_body_with_few_bytes_for_each_are_refused(make_classifier):
    classifier, images = make_classifier(), [picture()] * 3 + [BadRequest("not an image")]
    assert len(classifier.classify(images, call=Call(budget=Budget(sent=2 * LEAST_SENT)))) == 4
    with pytest.raises(TooCostly, match="3 images in 127 bytes"):
        classifier.classify(images, call=Call(budget=Budget(sent=2 * LEAST_SENT - 1)))
    assert len(classifier.classify(images, call=Call())) == 4  # not over HTTP


def test_an_image_too_costly_for_half_the_timeout_is_refused(make_classifier):
    (refused,) = make_classifier(request_timeout_s=0.2).classify([tiny_webp(10)])
    assert isinstance(refused, TooCostly)
    assert "at most 0.100 s" in str(refused)


def test_an_image_that_costs_more_than_estimated_is_charged_for_it(make_classifier, monkeypatch):
    monkeypatch.setattr("predictor.images.decoding.estimate", lambda *_: 0.001)
    costly, call = tiny_webp(8), Call()
    make_classifier().classify([costly], call=call)
    assert call.budget.spent_s > 0.01


@pytest.mark.usefixtures("exact")
def test_a_dear_image_waits_without_a_decoder_and_pays_once(make_classifier, monkeypatch):
    opened, waiting = [], []
    classifier, call = make_classifier(), Call()
    decoders = classifier.process.decoders
    monkeypatch.setattr(
        "predictor.images.decoding.check_header",
        lambda *args: opened.append(weakref.ref(args[0])) or check_header(*args),
    )
    dear, cheap = tiny_webp(15) + bytes(2000), picture("blue")
    with ThreadPoolExecutor(1) as pool:
        with decoders.dear.take(Call()):
            future = pool.submit(classifier.classify, [dear], call=call)
            wait_until(lambda: decoders.dear.waiting == 1)
            assert decoders.dear.backlog_s == pytest.approx(estimate_of(dear), abs=0.01)
            waiting += [decoders.turns._free == decoders.turns._decoders, opened[0]()]
            paid = call.budget.spent_s
            assert classifier.classify([cheap])[0][0].class_name == "blue_thing"
        assert future.result(timeout=60)[0][0].class_name
    assert waiting == [True, None]
    assert call.budget.size == len(dear)
    assert paid == pytest.approx(estimate_of(dear), abs=0.01)
    assert paid == call.budget.spent_s


def test_an_image_that_takes_several_times_as_long_as_a_photo_waits_among_its_like(
    make_classifier,
):
    classifier, flat = make_classifier(), tiny_webp(8)
    decoders = classifier.process.decoders
    assert DEAR_S < estimate_of(flat) < FREE_S
    with ThreadPoolExecutor(4) as pool, decoders.dear.take(Call()):
        waiting = [pool.submit(classifier.classify, [flat]) for _ in range(4)]
        wait_until(lambda: decoders.dear.waiting == 4)
        assert classifier.classify([picture("blue")])[0][0].class_name == "blue_thing"
    assert all(isinstance(future.result(60)[0], list) for future in waiting)


@pytest.mark.parametrize(
    ("image", "padding", "ratio", "last"),
    [
        (tiny_webp(1), 0, 1, "large"),
        (tiny_webp(1), 10**6, 1, "photo"),
        (tiny_webp(1), 10**6, 1000, "large"),
        (picture(), 10**5, 1, "photo"),
        (picture(), 10**5, 1000, "large"),  # a parser may take long for what was not sent
    ],
)
def test_a_large_image_of_few_bytes_lets_photos_go_first(image, padding, ratio, last):
    """As many bytes as photos of its size have let it keep its turn, if they were sent."""
    decoders, large, done = Decoders(1, Settings()), image + bytes(padding), []
    assert estimate_of(large) < DEAR_S

    def run(name, data):
        call = Call(budget=Budget(ratio=ratio if name == "large" else 1))
        decoders.decode(data, call, None, lambda image: done.append(image.load() and name))

    with ThreadPoolExecutor(4) as pool:
        with decoders.turns.take(Call()):
            futures = [pool.submit(run, "large", large) for _ in range(3)]
            wait_until(lambda: decoders.turns.waiting == 3)
            futures.append(pool.submit(run, "photo", picture()))
            wait_until(lambda: decoders.turns.waiting == 4)
        for future in futures:
            future.result(60)
    assert done[-1] == last


def test_an_image_whose_header_has_cost_much_waits_among_dear_ones(make_classifier, monkeypatch):
    spent_s = itertools.count(0, DEAR_S).__next__  # before and after the header, and so on
    monkeypatch.setattr("predictor.engine.decoders.thread_seconds", spent_s)
    classifier = make_classifier()
    with ThreadPoolExecutor(1) as pool:
        with classifier.process.decoders.dear.take(Call()):
            future = pool.submit(classifier.classify, [picture("blue")])
            wait_until(lambda: classifier.process.decoders.dear.waiting == 1)
        assert future.result(60)[0][0].class_name == "blue_thing"


def test_a_dear_image_that_cannot_pay_is_refused_at_once(make_classifier):
    classifier = make_classifier()
    with classifier.process.decoders.dear.take(Call()):
        (refused,) = classifier.classify([tiny_webp(20)])
    assert isinstance(refused, TooCostly)


def test_no_further_image_is_decoded_once_the_client_has_left(make_classifier, monkeypatch):
    call, decoded = Call(), []

    def leave_at_last(*args):
        decoded.append(1)
        if len(decoded) == 3:
            call.left.set_result(None)
        return decode(*args)

    monkeypatch.setattr("predictor.engine.decoders.decode", leave_at_last)
    with pytest.raises(ClientGone):
        make_classifier().classify([picture()] * 9, call=call)
    assert len(decoded) == 3


def test_no_image_is_decoded_after_the_deadline(make_classifier, monkeypatch):
    call, decoded = Call(deadline=monotonic() + 60), []

    def expire(*args):
        decoded.append(1)
        call.deadline = 0
        return decode(*args)

    monkeypatch.setattr("predictor.engine.decoders.decode", expire)
    with pytest.raises(DeadlineExceeded):
        make_classifier().classify([picture()] * 9, call=call)
    assert len(decoded) == 1


def test_an_image_refused_by_a_long_queue_has_its_own_error(make_classifier, monkeypatch):
    classifier = make_classifier()
    turns = classifier.process.decoders.turns
    monkeypatch.setattr(type(turns), "full", True)
    monkeypatch.setattr(turns, "_free", 0)
    (refused,) = classifier.classify([picture()])
    assert isinstance(refused, Overloaded)


def limited_decode(needs_s, given):
    """A decoder whose image needs so many CPU seconds, which its header does not say."""

    def decode_limited(data, max_pixels, enough, charge, alpha, most_s):
        given.append(most_s)
        charge(0.01)
        if most_s < needs_s:
            raise OutOfTime(f"{most_s:.2f} s")
        return decode(picture("blue"), max_pixels)

    return decode_limited


def test_image_that_costs_more_than_its_header_says_becomes_dear(make_classifier, monkeypatch):
    classifier, given, call = make_classifier(), [], Call()
    monkeypatch.setattr("predictor.engine.decoders.decode", limited_decode(1, given))
    with ThreadPoolExecutor(1) as pool:
        with classifier.process.decoders.dear.take(Call()):
            future = pool.submit(classifier.classify, [bytes(5000)], call=call)
            wait_until(lambda: classifier.process.decoders.dear.waiting == 1)
            assert given == [UNEXPECTED_S]
        assert future.result(timeout=60)[0][0].class_name == "blue_thing"
    assert given == [UNEXPECTED_S, pytest.approx(0.3 + 5 * 0.3, abs=0.1)]


def test_image_out_of_time_and_budget_is_refused(make_classifier, monkeypatch):
    given = []
    monkeypatch.setattr("predictor.engine.decoders.decode", limited_decode(2, given))
    classifier = make_classifier()
    tiny, larger = classifier.classify([b"x"]), classifier.classify([bytes(3000)])
    assert all(isinstance(refused, TooCostly) for (refused,) in (tiny, larger))
    assert given[::2] == [UNEXPECTED_S, UNEXPECTED_S]
    assert given[1::2] == [pytest.approx(0.3, abs=0.01), pytest.approx(1.2, abs=0.1)]


def test_seconds_of_a_process_that_decodes_are_charged(make_classifier):
    """Waiting for it costs this thread nothing."""
    costly, call = webp_of_code_groups(128), Call()
    make_classifier().classify([costly], call=call)
    began = thread_time()
    decode_here(costly, 50_000_000, None, lambda _: None, False)
    assert call.budget.spent_s > 0.5 * (thread_time() - began) > 0.02


def test_no_process_is_started_once_the_budget_is_spent(make_classifier, monkeypatch):
    call = Call()
    call.budget.spent_s = 1.0
    monkeypatch.setattr("predictor.images.sandbox._start_process", pytest.fail)
    (refused,) = make_classifier().classify([encode(Image.new("RGB", (8, 8)), "AVIF")], call=call)
    assert isinstance(refused, TooCostly)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (tiny_webp(15), TooCostly),
        (encode(Image.effect_noise((64, 64), 99), "PNG")[:-900], DamagedImage),
    ],
    ids=["costly", "truncated"],
)
def test_the_error_of_an_image_does_not_keep_the_image(make_classifier, monkeypatch, data, error):
    """Of 64 images in a request, all errors are kept until the answer."""
    opened = []
    monkeypatch.setattr(
        "predictor.images.decoding.check_header",
        lambda *args: opened.append(weakref.ref(args[0])) or check_header(*args),
    )
    gc.disable()
    try:
        (refused,) = make_classifier().classify([data])
        assert isinstance(refused, error)
        assert [image() for image in opened] == [None]
    finally:
        gc.enable()
