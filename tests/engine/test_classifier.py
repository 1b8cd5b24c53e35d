import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import numpy as np
import pytest

from conftest import StuckModel
from pictures import picture
from predictor.engine.call import Call
from predictor.engine.classifier import Classifier
from predictor.errors import (
    BadRequest,
    DamagedImage,
    DeadlineExceeded,
    InferenceFailed,
    NotReady,
    Overloaded,
    TooLarge,
    UnsupportedImage,
)
from predictor.images.decoding import decode
from predictor.settings import Settings
from toy import ToyModel, toy_model
from waiting import wait_until


def names(outcome):
    return [prediction.class_name for prediction in outcome]


def test_a_green_image_has_the_green_class(classifier):
    (green,) = classifier.classify([picture("green")])
    assert names(green) == ["green_thing"]


def test_predictions_are_ranked_and_probabilities_sum_to_one(classifier):
    (outcome,) = classifier.classify([picture("blue")], top_k=3)
    assert names(outcome) == ["blue_thing", "red_thing", "green_thing"]
    assert sum(p.probability for p in outcome) == pytest.approx(1)


def test_exact_decode_decodes_all_pixels(make_classifier, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "predictor.engine.decoders.decode", lambda *args: asked.append(args[2]) or decode(*args)
    )
    for exact in (True, False):
        make_classifier(exact_decode=exact).classify([picture()])
    assert asked == [None, 2 * ToyModel.preprocessing.resize]


def test_images_keep_their_order_and_a_bad_one_has_its_own_error(classifier):
    red, bad, empty, blue = classifier.classify([picture("red"), b"text", b"", picture("blue")])
    assert names(red) + names(blue) == ["red_thing", "blue_thing"]
    assert isinstance(bad, UnsupportedImage)
    assert isinstance(empty, BadRequest)


def test_an_error_in_place_of_an_image_is_returned(classifier):
    error = BadRequest("This is not base64.")
    assert classifier.classify([error, picture()])[0] is error


def test_damaged_images_do_not_affect_concurrent_requests(classifier):
    images = [picture("red"), picture("green")[:60], picture("blue")] * 20
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda image: classifier.classify([image])[0], images))
    assert [names(o)[0] for o in outcomes[0::3]] == ["red_thing"] * 20
    assert all(isinstance(o, DamagedImage) for o in outcomes[1::3])
    assert [names(o)[0] for o in outcomes[2::3]] == ["blue_thing"] * 20


@pytest.mark.parametrize("top_k", [-1, 0])
def test_top_k_below_1_is_a_bad_request(classifier, top_k):
    with pytest.raises(BadRequest, match="at least 1"):
        classifier.classify([picture()], top_k)


def test_top_k_above_the_number_of_classes_answers_all(classifier):
    assert len(classifier.classify([picture()], 4)[0]) == 3


def test_more_images_than_the_queue_holds_are_refused_at_once(make_classifier):
    with pytest.raises(TooLarge, match="3 images; at most 2"):
        make_classifier(max_queue=2).classify([picture()] * 3)


def test_a_request_before_the_model_is_loaded_is_not_ready():
    let = threading.Event()
    classifier = Classifier(Settings(), load=lambda *_: let.wait(10) and toy_model())
    with pytest.raises(NotReady, match="is loading"):
        classifier.classify([picture()])
    assert classifier.unhealthy_reason() is None
    let.set()
    assert classifier.loading.result(timeout=10)
    assert classifier.classify([picture()])
    classifier.close()


def test_the_model_is_loaded_once_however_often_it_is_started():
    loads = []
    classifier = Classifier(Settings(), load=lambda *_: loads.append(1) or toy_model())
    for _ in range(3):
        classifier.start()
    classifier.loading.result(timeout=10)
    assert loads == [1]
    classifier.close()


def test_the_model_is_loaded_for_the_processors_of_its_process():
    loads = []
    settings = Settings(torch_threads=3)
    classifier = Classifier(settings, load=lambda *given: loads.append(given) or toy_model())
    classifier.start()
    classifier.loading.result(timeout=10)
    assert loads == [(settings, 3)]
    classifier.close()


def test_only_inference_threads_run_the_model(make_classifier):
    """torch keeps workers and memory for each thread that ever computed."""
    computed = set()

    class Watched(ToyModel):
        def logits(self, images, lanes):
            computed.add(threading.get_ident())
            return super().logits(images, lanes)

    classifier = make_classifier(Watched())
    with ThreadPoolExecutor(8) as callers:
        list(callers.map(lambda _: classifier.classify([picture()]), range(40)))
    assert len(computed) == ToyModel.lanes


def test_the_model_is_warm_before_it_is_ready(make_classifier):
    model = ToyModel()
    make_classifier(model)
    assert model.batches[0] == 1
    assert sum(model.batches) == 1 + model.max_batch_size


def test_a_result_after_the_deadline_is_an_error(make_classifier):
    model = StuckModel()
    classifier = make_classifier(model, request_timeout_s=0.05)
    with pytest.raises(DeadlineExceeded):
        classifier.classify([picture()])
    model.let.set()


def test_a_call_without_a_deadline_gets_the_request_timeout(make_classifier):
    classifier, call = make_classifier(request_timeout_s=60), Call()
    began = monotonic()
    classifier.classify([picture()], call=call)
    assert began + 59 < call.deadline <= monotonic() + 60


def test_a_deadline_that_is_set_is_kept(make_classifier):
    call = Call(deadline=monotonic() + 5)
    before = call.deadline
    make_classifier(request_timeout_s=60).classify([picture()], call=call)
    assert call.deadline == before


def test_a_process_holds_as_many_slots_as_max_in_flight(make_classifier):
    slots = make_classifier(max_in_flight=1).process.slots
    with slots.hold(), pytest.raises(Overloaded), slots.hold():
        pass
    with slots.hold():
        pass


def test_a_call_gets_the_timings_of_its_steps(classifier):
    call = Call()
    classifier.classify([picture(), picture("blue")], call=call)
    assert list(call.timings.known()) == ["decode", "queue", "inference"]


def test_a_call_gets_the_best_class_of_each_image(classifier):
    call = Call()
    classifier.classify([picture("blue"), b"text", picture()], call=call)
    assert call.class_ids == ["n00000002", "n00000000"]


def test_an_image_that_is_not_queued_has_no_queue_time(classifier):
    call = Call()
    classifier.classify([b"text"], call=call)
    assert list(call.timings.known()) == ["decode"]


@pytest.mark.parametrize(("refused_by", "known"), [("check", []), ("submit", ["decode"])])
def test_a_request_refused_by_the_queue_has_no_queue_time(
    classifier, monkeypatch, refused_by, known
):
    """If it can be known that it would be too late, it is refused before it is decoded."""

    def full(*_):
        raise Overloaded("No room.")

    monkeypatch.setattr(f"predictor.engine.batching.Batcher.{refused_by}", full)
    call = Call()
    with pytest.raises(Overloaded):
        classifier.classify([picture()], call=call)
    assert list(call.timings.known()) == known


def test_all_forward_passes_but_the_warm_up_are_reported(make_classifier):
    model, first, second = ToyModel(), [], []
    classifier = make_classifier(model)
    for passes in (first, second):
        classifier.on_pass.append(
            lambda images, seconds, to=passes: to.append((images, seconds >= 0))
        )
    warm_up = len(model.batches)
    classifier.classify([picture()] * 5)
    assert first == second == [(size, True) for size in model.batches[warm_up:]]


def test_on_close_callbacks_run_when_the_classifier_closes(make_classifier):
    classifier, closed = make_classifier(), []
    classifier.on_close.append(lambda: closed.append(1))
    classifier.on_close.append(lambda: closed.append(2))
    assert closed == []
    classifier.close()
    assert closed == [1, 2]


def test_requests_in_progress_and_waiting_images_are_counted(make_classifier):
    model = StuckModel()
    classifier = make_classifier(model)
    slots = classifier.process.slots
    assert (slots.held, classifier.queue_depth) == (0, 0)
    with ThreadPoolExecutor(1) as pool, slots.hold():
        assert slots.held == 1
        pool.submit(classifier.classify, [picture()] * (model.max_batch_size + 2))
        wait_until(lambda: classifier.queue_depth == 2)
        model.let.set()
    assert (slots.held, classifier.queue_depth) == (0, 0)


def test_logits_are_the_models_own_numbers(classifier):
    (logits,) = classifier.logits([picture("green")])
    assert logits.tolist() == pytest.approx([0, 255 / 25, 0], abs=0.01)


def test_prepared_pixels_are_accepted_together_with_images(classifier):
    red = np.zeros((8, 8, 3), np.float32)
    red[..., 0] = 127.5
    photo, pixels = classifier.logits([picture("red"), red])
    assert (photo.argmax(), pixels.argmax()) == (0, 0)
    assert pixels[0] == pytest.approx(5.1)


def test_infinite_pixels_do_not_affect_other_images(classifier):
    bad = np.full((8, 8, 3), np.inf, np.float32)
    failed, broken, good = classifier.logits([bad, b"text", picture("blue")])
    assert isinstance(failed, InferenceFailed)
    assert isinstance(broken, UnsupportedImage)
    assert good.argmax() == 2


def test_the_served_name_is_the_models_own_or_the_configured_one(make_classifier):
    assert make_classifier().name == "toy"
    assert make_classifier(served_name="flowers").name == "flowers"
