"""Explanations: their content, and that predictions have priority."""

import gc
import threading
import weakref
from contextlib import ExitStack
from functools import partial
from time import monotonic

import pytest
from PIL import Image

from leaving import gone
from pictures import encode, picture, tiny_webp
from predictor.engine.call import Call
from predictor.engine.explainer import Explainer
from predictor.errors import (
    BadRequest,
    ClientGone,
    DamagedImage,
    ExplainerBusy,
    InferenceFailed,
    NotExplainable,
    TooCostly,
)
from toy import ToyModel
from waiting import wait_until

RED, BLUE = 0, 2


def explaining(classifier):
    """A function that explains photos by this model."""
    return partial(Explainer(classifier.process, classifier.settings).explain, classifier)


def half_red_half_blue():
    image = Image.new("RGB", (32, 32), (255, 0, 0))
    image.paste((0, 0, 200), (16, 0, 32, 32))
    return encode(image)


def test_the_heat_is_where_the_class_is(classifier):
    explanation = explaining(classifier)(half_red_half_blue(), BLUE)
    assert explanation.prediction.class_name == "blue_thing"
    assert explanation.heat.shape == (2, 2)
    assert (explanation.heat[:, 1] > explanation.heat[:, 0] + 0.5).all()


def test_without_a_class_the_most_probable_one_is_explained(classifier):
    assert explaining(classifier)(half_red_half_blue()).prediction.class_index == RED


def test_an_explanation_has_the_probability_of_the_prediction(classifier):
    (predicted,) = classifier.classify([half_red_half_blue()], top_k=3)
    for prediction in predicted:
        explained = explaining(classifier)(half_red_half_blue(), prediction.class_index)
        assert explained.prediction == prediction


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((90, 90), (0, 0, 8 / 9, 8 / 9)),
        ((180, 90), (5 / 18, 0, 13 / 18, 8 / 9)),
        ((90, 9000), (0, 446 / 900, 8 / 9, 454 / 900)),
    ],
)
def test_the_box_is_the_part_that_the_model_sees(classifier, size, box):
    """8 of the 9 pixels of the resized shorter side; only the middle of a very long image."""
    assert explaining(classifier)(picture(size=size)).box == pytest.approx(box)


@pytest.mark.parametrize("index", [-1, 3, 10**9])
def test_a_class_index_out_of_range_is_a_bad_request(classifier, index):
    with pytest.raises(BadRequest, match="between 0 and 2"):
        explaining(classifier)(picture(), index)


def test_after_a_damaged_image_the_next_one_is_explained(classifier):
    explain = explaining(classifier)
    with pytest.raises(DamagedImage):
        explain(picture()[:40])
    assert explain(picture()).prediction.class_index == RED


class Failing(ToyModel):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def explain(self, image, evidence, pause):
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("boom"), NotExplainable("It has none.")])
def test_a_model_that_cannot_explain_still_predicts(make_classifier, error):
    classifier = make_classifier(Failing(error))
    expected = NotExplainable if isinstance(error, NotExplainable) else InferenceFailed
    with pytest.raises(expected):
        explaining(classifier)(picture())
    (predicted,) = classifier.classify([picture()])
    assert predicted[0].class_name == "red_thing"


class Layered(ToyModel):
    """Sets ``between`` between two layers, and continues when ``go_on`` is set."""

    def __init__(self):
        super().__init__()
        self.between, self.go_on, self.finished = (threading.Event() for _ in range(3))

    def explain(self, image, evidence, pause):
        self.between.set()
        assert self.go_on.wait(60)
        answer = super().explain(image, evidence, pause)
        self.finished.set()
        return answer


def in_background(function, *arguments):
    outcome = []

    def run():
        try:
            outcome.append(function(*arguments))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def test_an_explanation_does_not_begin_during_a_prediction(make_classifier):
    model = Layered()
    classifier = make_classifier(model)
    with classifier.process.slots.hold():
        thread, outcome = in_background(explaining(classifier), picture())
        assert not model.between.wait(0.2)
    assert model.between.wait(10)
    model.go_on.set()
    thread.join(10)
    assert outcome[0].prediction.class_index == RED


def test_an_explanation_pauses_between_layers_for_a_prediction(make_classifier):
    model = Layered()
    classifier = make_classifier(model)
    thread, outcome = in_background(explaining(classifier), picture())
    assert model.between.wait(10)
    with classifier.process.slots.hold():
        model.go_on.set()
        assert classifier.classify([picture("blue")])[0][0].class_name == "blue_thing"
        assert not model.finished.wait(0.2)
    thread.join(10)
    assert outcome[0].prediction.class_index == RED


def test_an_explanation_without_idle_time_ends_at_the_deadline(make_classifier):
    classifier = make_classifier(request_timeout_s=0.1)
    explain = explaining(classifier)
    with (
        classifier.process.slots.hold(),
        pytest.raises(ExplainerBusy, match="too busy with predictions"),
    ):
        explain(picture())
    assert explain(picture()).prediction.class_index == RED


def test_an_explanation_has_the_deadline_of_its_call(make_classifier):
    explain = explaining(make_classifier(request_timeout_s=60))
    call = Call()
    began = monotonic()
    explain(picture(), call=call)
    assert began + 59 < call.deadline <= monotonic() + 60
    call.deadline = began - 1
    with pytest.raises(ExplainerBusy):
        explain(picture(), call=call)


def test_an_explanation_ends_when_its_client_leaves(make_classifier):
    classifier = make_classifier()
    explain = explaining(classifier)
    with classifier.process.slots.hold():
        began = monotonic()
        with pytest.raises(ClientGone):
            explain(picture(), call=gone())
        assert monotonic() - began < 10
    assert explain(picture()).prediction.class_index == RED


def test_the_photo_is_shrunk_and_freed_with_its_explanation(classifier):
    explanation = explaining(classifier)(picture(size=(4096, 2048)))
    assert explanation.photo.size == (1024, 512)
    kept = weakref.ref(explanation.photo)
    del explanation
    wait_until(lambda: gc.collect() < 0 or kept() is None)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_ended_thread_is_replaced_at_the_next_call(make_classifier):
    model = Failing(SystemExit())
    explain = explaining(make_classifier(model))
    before = set(threading.enumerate())
    with pytest.raises(InferenceFailed):
        explain(picture())
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    model.error = NotExplainable("It has none.")
    with pytest.raises(NotExplainable):
        explain(picture())


def test_the_thread_ends_with_the_explainer(classifier):
    explainer = Explainer(classifier.process, classifier.settings)
    before = set(threading.enumerate())
    explainer.explain(classifier, picture())
    (thread,) = set(threading.enumerate()) - before
    explainer.close()
    thread.join(10)
    assert not thread.is_alive()
    with pytest.raises(InferenceFailed):
        explainer.explain(classifier, picture())


def test_the_cause_of_a_failure_is_only_in_the_log(make_classifier, caplog):
    explain = explaining(make_classifier(Failing(RuntimeError("boom"))))
    with pytest.raises(InferenceFailed) as failed:
        explain(picture())
    assert "boom" not in str(failed.value)
    assert "boom" in caplog.text


def test_explanations_in_progress_are_limited(make_classifier):
    model = Layered()
    classifier = make_classifier(model, max_explanations=2)
    explain, slots = explaining(classifier), classifier.process.explanations

    def ask():
        with slots.hold():
            return explain(picture())

    asked = [in_background(ask) for _ in range(2)]
    wait_until(lambda: slots.held == 2)
    with pytest.raises(ExplainerBusy, match="limit of 2 explanations"), slots.hold():
        pass
    model.go_on.set()
    for thread, outcome in asked:
        thread.join(10)
        assert outcome[0].prediction.class_index == RED
    assert slots.held == 0


def test_an_explanation_holds_no_slot_of_a_prediction(make_classifier):
    model = Layered()
    classifier = make_classifier(model, max_in_flight=1)
    explain = explaining(classifier)
    thread, _ = in_background(explain, picture())
    assert model.between.wait(10)
    with classifier.process.slots.hold():
        assert classifier.process.slots.held == 1
    model.go_on.set()
    thread.join(10)


def test_an_explanation_waits_for_its_turn_at_the_decoders(make_classifier):
    model = Layered()
    model.go_on.set()
    classifier = make_classifier(model)
    turns = classifier.process.decoders.turns
    with ExitStack() as held:
        for _ in range(turns._decoders):
            held.enter_context(turns.take(Call()))
        thread, outcome = in_background(explaining(classifier), picture())
        wait_until(lambda: turns.waiting == 1)
        assert not model.between.is_set()
    thread.join(10)
    assert outcome[0].prediction.class_index == RED


def test_an_explanation_of_a_costly_image_is_refused(classifier):
    with pytest.raises(TooCostly):
        explaining(classifier)(tiny_webp(20))
