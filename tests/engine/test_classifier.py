import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from predictor.engine.timings import Timings

import predictor
from conftest import ToyModel, toy_model
from pictures import picture
from predictor.engine.classifier import Classifier, load_engine
from predictor.errors import (
    BadRequest,
    DamagedImage,
    DeadlineExceeded,
    InferenceFailed,
    ModelError,
    NotReady,
    Overloaded,
    TooLarge,
    UnsupportedImage,
    WeightsError,
)
from predictor.images.decoding import decode
from predictor.settings import Settings
from waiting import wait_until


class StuckModel(ToyModel):
    """Answers only when let, after its warm-up."""

    def __init__(self):
        super().__init__()
        self.let = threading.Event()

    def logits(self, images, lanes):
        if any(image.any() for image in images):  # the warm-up's are black
            assert self.let.wait(10)
        return super().logits(images, lanes)


def names(outcome):
    return [prediction.class_name for prediction in outcome]


def test_a_picture_has_the_class_of_its_colour(classifier):
    (green,) = classifier.classify([picture("green")])
    assert names(green) == ["green_thing"]


def test_top_k_are_named_best_first_and_sum_to_one(classifier):
    (outcome,) = classifier.classify([picture("blue")], top_k=3)
    assert names(outcome) == ["blue_thing", "red_thing", "green_thing"]
    assert sum(p.probability for p in outcome) == pytest.approx(1)


def test_the_purists_switch_decodes_every_pixel(make_classifier, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "predictor.engine.classifier.decode", lambda *args: asked.append(args[2]) or decode(*args)
    )
    for exact in (True, False):
        make_classifier(exact_decode=exact).classify([picture()])
    assert asked == [None, 2 * ToyModel.preprocessing.resize]


def test_several_keep_their_order_and_a_bad_one_has_its_own_error(classifier):
    red, bad, empty, blue = classifier.classify([picture("red"), b"text", b"", picture("blue")])
    assert names(red) + names(blue) == ["red_thing", "blue_thing"]
    assert isinstance(bad, UnsupportedImage)
    assert isinstance(empty, BadRequest)


def test_a_damaged_neighbour_does_no_harm_under_concurrency(classifier):
    images = [picture("red"), picture("green")[:60], picture("blue")] * 20
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda image: classifier.classify([image])[0], images))
    assert [names(o)[0] for o in outcomes[0::3]] == ["red_thing"] * 20
    assert all(isinstance(o, DamagedImage) for o in outcomes[1::3])
    assert [names(o)[0] for o in outcomes[2::3]] == ["blue_thing"] * 20


@pytest.mark.parametrize("top_k", [-1, 0, 4])
def test_top_k_out_of_range_is_the_callers_error(classifier, top_k):
    with pytest.raises(BadRequest, match="1 to 3"):
        classifier.classify([picture()], top_k)


def test_more_images_than_may_wait_are_refused_at_once(make_classifier):
    with pytest.raises(TooLarge):
        make_classifier(max_queue=2).classify([picture()] * 3)


def test_before_the_model_is_there_callers_are_told_to_wait():
    let = threading.Event()
    classifier = Classifier(Settings(), load=lambda *_: let.wait(10) and toy_model())
    with pytest.raises(NotReady, match="being loaded"):
        classifier.classify([picture()])
    assert classifier.unhealthy_reason() is None  # loading is no ailment
    let.set()
    assert classifier.loading.result(timeout=10)
    assert classifier.classify([picture()])
    classifier.close()


def test_it_is_loaded_once_however_often_it_is_started():
    loads = []
    classifier = Classifier(Settings(), load=lambda *_: loads.append(1) or toy_model())
    for _ in range(3):
        classifier.start()
    classifier.loading.result(timeout=10)
    assert loads == [1]
    classifier.close()


def test_only_the_inference_thread_computes_however_many_ask(make_classifier):
    """Each thread that computes keeps workers and memory of torch's for itself."""
    computed = set()

    class Watched(ToyModel):
        def logits(self, images, lanes):
            computed.add(threading.get_ident())
            return super().logits(images, lanes)

    classifier = make_classifier(Watched())
    with ThreadPoolExecutor(8) as callers:
        list(callers.map(lambda _: classifier.classify([picture()]), range(40)))
    assert len(computed) == ToyModel.lanes


def test_a_model_that_cannot_be_loaded_is_an_ailment():
    def load(*_):
        raise WeightsError("No such weights.")

    classifier = Classifier(Settings(), load)
    classifier.start()
    with pytest.raises(WeightsError):
        classifier.loading.result(timeout=10)
    with pytest.raises(NotReady):
        classifier.require_model()
    assert classifier.unhealthy_reason()


def test_a_torch_and_a_torchvision_that_do_not_fit_are_both_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "predictor.models.loading", None)  # importing it fails
    with pytest.raises(ModelError, match=r"torch 2\..* and torchvision 0\..*README"):
        load_engine(Settings())


def test_the_model_is_warm_before_it_is_ready(make_classifier):
    model = ToyModel()
    make_classifier(model)
    assert model.batches[0] == 1
    assert sum(model.batches) == 1 + model.max_batch_size


def test_a_late_answer_is_a_deadline_and_not_an_answer(make_classifier):
    model = StuckModel()
    classifier = make_classifier(model, request_timeout_s=0.05)
    with pytest.raises(DeadlineExceeded):
        classifier.classify([picture()])
    model.let.set()


def test_a_batch_that_hangs_is_an_ailment(make_classifier):
    model = StuckModel()
    classifier = make_classifier(model, request_timeout_s=0.05, hang_timeout_s=0.01)
    with pytest.raises(DeadlineExceeded):
        classifier.classify([picture()])
    assert "running for" in classifier.unhealthy_reason()
    model.let.set()


def test_a_model_that_raises_is_a_failure_of_ours_and_lives_on(make_classifier):
    class Moody(ToyModel):
        def logits(self, images, lanes):
            if any(image[..., 2].any() for image in images):
                raise RuntimeError("I do not like blue")
            return super().logits(images, lanes)

    classifier = make_classifier(Moody())
    blue, red = classifier.classify([picture("blue"), picture("red")])
    assert isinstance(blue, InferenceFailed)
    assert "failed on this image" in str(blue)
    assert names(red) == ["red_thing"]
    assert classifier.unhealthy_reason() is None


def test_a_model_that_answers_nan_is_a_failure_of_ours(make_classifier):
    class Lost(ToyModel):
        def logits(self, images, lanes):
            return super().logits(images, lanes) * np.float32(np.nan)

    (outcome,) = make_classifier(Lost()).classify([picture()])
    assert isinstance(outcome, InferenceFailed)
    assert "not a number" in str(outcome)


def test_first_calls_of_get_prediction_share_one_classifier(monkeypatch, classifier):
    built = []
    monkeypatch.setattr(predictor, "Classifier", lambda _: built.append(1) or classifier)
    predictor._built.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(predictor.get_prediction, [picture("red")] * 8))
    predictor._built.cache_clear()
    assert answers == [{"class_id": "n00000000", "class_name": "red_thing"}] * 8
    assert built == [1]


def test_places_are_limited_and_given_back(make_classifier):
    classifier = make_classifier(max_in_flight=1)
    with (
        classifier.process.slots.hold(),
        pytest.raises(Overloaded),
        classifier.process.slots.hold(),
    ):
        pass
    with classifier.process.slots.hold():
        pass


def test_a_caller_learns_where_the_time_went(classifier):
    timings = Timings()
    classifier.classify([picture(), picture("blue")], timings=timings)
    assert list(timings.known()) == ["decode", "queue", "inference"]  # nothing was read here


def test_an_image_that_did_not_get_to_the_model_has_not_waited_for_it(classifier):
    timings = Timings()
    classifier.classify([b"text"], timings=timings)
    assert list(timings.known()) == ["decode"]


def test_a_refused_image_has_not_waited(classifier, monkeypatch):
    def full(*_):
        raise Overloaded("No room.")

    monkeypatch.setattr("predictor.engine.batching.Batcher.submit", full)
    timings = Timings()
    with pytest.raises(Overloaded):
        classifier.classify([picture()], timings=timings)
    assert list(timings.known()) == ["decode"]


def test_every_forward_pass_is_told_but_the_warm_up(make_classifier):
    model, passes = ToyModel(), []
    classifier = make_classifier(model)
    classifier.on_pass = lambda images, seconds: passes.append((images, seconds >= 0))
    warm_up = len(model.batches)
    classifier.classify([picture()] * 5)
    assert passes == [(size, True) for size in model.batches[warm_up:]]


def test_requests_in_work_and_images_that_wait_are_known(make_classifier):
    model = StuckModel()
    classifier = make_classifier(model)
    assert (classifier.process.slots.held, classifier.queue_depth) == (0, 0)
    with ThreadPoolExecutor(1) as pool, classifier.process.slots.hold():
        assert classifier.process.slots.held == 1
        pool.submit(classifier.classify, [picture()] * (model.max_batch_size + 2))
        wait_until(lambda: classifier.queue_depth == 2)
        model.let.set()
    assert (classifier.process.slots.held, classifier.queue_depth) == (0, 0)


def test_scores_are_the_models_own_numbers(classifier):
    (logits,) = classifier.logits([picture("green")])
    assert logits.tolist() == pytest.approx([0, 255 / 25, 0], abs=0.01)


def test_pixels_that_are_prepared_already_stand_beside_photos(classifier):
    red = np.zeros((8, 8, 3), np.float32)
    red[..., 0] = 127.5
    photo, pixels = classifier.logits([picture("red"), red])
    assert (photo.argmax(), pixels.argmax()) == (0, 0)
    assert pixels[0] == pytest.approx(5.1)


def test_scores_that_are_no_numbers_are_nobody_elses_matter(classifier):
    bad = np.full((8, 8, 3), np.inf, np.float32)
    failed, broken, good = classifier.logits([bad, b"text", picture("blue")])
    assert isinstance(failed, InferenceFailed)
    assert isinstance(broken, UnsupportedImage)
    assert good.argmax() == 2


def test_it_is_served_under_its_own_name_or_the_one_that_is_chosen(make_classifier):
    assert make_classifier().name == "toy"
    assert make_classifier(served_name="flowers").name == "flowers"
