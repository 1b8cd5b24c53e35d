"""A store of one model, as front ends use it, without Flask."""

import subprocess
import sys
from time import monotonic, sleep

import pytest
from PIL import Image
from skimage import data

from conftest import store_around
from paths import ROOT
from pictures import encode, picture
from predictor.engine.call import Call
from predictor.engine.classifier import Classifier
from predictor.engine.served import Place
from predictor.errors import (
    DeadlineExceeded,
    ExplainerBusy,
    InferenceFailed,
    NotReady,
    Overloaded,
    ServiceError,
    UnknownModel,
    UnknownVersion,
    WeightsError,
)
from predictor.settings import Settings
from scrape import Scrape, series
from toy import ToyModel, toy_model

MODEL = {"model": "toy", "version": "1"}


@pytest.fixture
def make_store(make_classifier):
    return lambda model=None, **settings: store_around(make_classifier(model, **settings))


@pytest.fixture
def loading(loading_classifier):
    return store_around(loading_classifier)


@pytest.fixture
def failed():
    def load(*_):
        raise WeightsError("There are no weights.")

    store = store_around(Classifier(Settings(), load))
    store.start()
    assert "no weights" in str(store.loading.exception(timeout=10))
    return store


def test_files_added_after_the_start_are_watched(make_store):
    """A worker starts the store before the app adds the file of its tokens."""
    store, changes = make_store(), []
    store.start()
    store.watch.add(list, lambda: changes.append(1))
    store.start()
    assert changes


def place(store, kind="prediction"):
    return Place(kind, store.resolve)


# A front end of another kind: this process never imports Flask.
FRONT_END = """
import sys
from predictor.engine.call import Call
from predictor.engine.served import Place
from predictor.settings import Settings
from predictor.store.single import single

store = single(Settings(model="efficientnet_lite0"))
store.start()
store.loading.result(60)
photo, call = sys.stdin.buffer.read(), Call()
with Place("prediction", store.resolve).hold() as served:
    call.model, call.version = served.name, str(served.version)
    (predictions,) = served.classify([photo], 3, call)
with Place("explanation", store.resolve).hold() as served:
    explanation = served.explain(photo, predictions[0].class_index, call)
store.metrics.record("/Classify", "GRPC", 200, 0.1, call, [])
(counted,) = store.metrics.readings().values("predictor_requests_total")
assert explanation.prediction.class_id == predictions[0].class_id
assert list(call.timings.known()) == ["decode", "queue", "inference", "explain"]
print(call.model, predictions[0].class_name, counted, {"flask", "werkzeug"} & sys.modules.keys())
"""


@pytest.mark.slow
def test_a_front_end_needs_no_flask():
    photo = encode(Image.fromarray(data.coffee()))
    done = subprocess.run(
        [sys.executable, "-c", FRONT_END], input=photo, cwd=ROOT, capture_output=True, timeout=120
    )
    assert done.stdout.decode() == "efficientnet_lite0 espresso 1.0 set()\n", done.stderr.decode()


def test_a_request_is_admitted_classified_and_recorded(make_store):
    store, call = make_store(), Call(model="toy", version="1")
    with place(store).hold() as served:
        assert store.process.slots.held == 1
        (predictions,) = served.classify([picture("blue")], len(served.model.labels), call)
    store.metrics.record("/predict", "POST", 200, 0.5, call, [])
    assert predictions[0].class_name == "blue_thing"
    assert call.class_ids == ["n00000002"]
    numbers = Scrape.of(store.metrics)
    assert numbers[series("predictor_predictions_total", **MODEL)] == 1
    assert numbers[series("predictor_decode_seconds_count", **MODEL)] == 1


def test_a_request_over_the_limit_is_refused_until_one_ends(make_store):
    store = make_store(max_in_flight=1)
    with place(store).hold(), pytest.raises(Overloaded, match="limit of 1 requests"):
        place(store).take()
    with place(store).hold():
        pass


@pytest.mark.parametrize("kind", ["prediction", "explanation"])
def test_a_request_is_not_admitted_while_the_model_loads(loading, kind):
    with pytest.raises(NotReady, match="is loading"):
        place(loading, kind).take()
    assert loading.process.slots.held == loading.process.explanations.held == 0


def test_explanations_have_their_own_limit_and_gauge(make_store):
    store = make_store(max_explanations=1, max_in_flight=1)
    with place(store).hold(), place(store, "explanation").hold():
        assert Scrape.of(store.metrics)["predictor_explanations_in_flight"] == 1
        with pytest.raises(ExplainerBusy, match="limit of 1 explanations"):
            place(store, "explanation").take()
    assert Scrape.of(store.metrics)["predictor_explanations_in_flight"] == 0


class Slow(ToyModel):
    """Each image takes 0.1 s."""

    max_batch_size, warm_up_sizes = 1, {1}

    def logits(self, images, lanes):
        sleep(0.1 if images[0].any() else 0)
        return super().logits(images, lanes)


def test_all_images_of_a_request_share_one_deadline(make_store):
    served = make_store(Slow(), request_timeout_s=0.25).default
    with pytest.raises(DeadlineExceeded):
        served.classify([picture()] * 5, 1, Call())


def test_all_explanations_of_a_request_share_one_deadline(make_store):
    served, call = make_store(Slow(), request_timeout_s=0.25).default, Call()
    with pytest.raises(ExplainerBusy):
        [served.explain(picture(), None, call) for _ in range(5)]


STEPS = {
    "classify": lambda served, call: served.classify([picture()], 1, call),
    "logits": lambda served, call: served.logits([picture()], call),
    "explain": lambda served, call: served.explain(picture(), None, call),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_predictions_and_explanations_have_the_same_deadline(make_store, step):
    served, call = make_store(request_timeout_s=60).default, Call()
    began = monotonic()
    step(served, call)
    assert began + 60 <= call.deadline <= monotonic() + 60


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_later_step_of_a_request_keeps_its_deadline(make_store, step):
    served, call = make_store(request_timeout_s=60).default, Call()
    served.classify([picture()], 1, call)
    first = call.deadline
    step(served, call)
    assert call.deadline == first


@pytest.mark.parametrize("asked", [(), ("toy",), ("toy", "1"), ("toy", "1.0"), (None, "1")])
def test_the_only_version_answers(make_store, asked):
    assert make_store().resolve(*asked).name == "toy"


def test_the_served_name_is_the_model_name(make_store):
    assert make_store(served_name="flowers").resolve("flowers").name == "flowers"


def test_an_unknown_model_or_version_is_an_error(make_store):
    store = make_store()
    with pytest.raises(UnknownModel, match="no model 'cat'. This server serves 'toy'"):
        store.resolve("cat", "1")
    for version in ("2", "0", "1.1", "-1", "all", "٢", "", "1" * 1000):
        with pytest.raises(UnknownVersion, match="It has 1."):
            store.resolve("toy", version)


def test_a_loading_model_is_healthy_and_not_ready(loading):
    loading.expect_healthy()
    for ask in (loading.expect_ready, loading.resolve, loading.names):
        with pytest.raises(NotReady, match="is loading"):
            ask()
    assert loading.default is None


def test_a_failed_load_is_not_healthy(failed):
    for check in (failed.expect_healthy, failed.expect_ready):
        with pytest.raises(InferenceFailed, match="could not be loaded"):
            check()


def test_a_loaded_model_is_ready_until_the_process_drains(make_store):
    store = make_store()
    store.expect_ready()
    store.process.draining = True
    store.expect_healthy()
    with pytest.raises(NotReady, match="shutting down"):
        store.expect_ready()


@pytest.mark.parametrize(
    ("kind", "slots"),
    [
        ("prediction", lambda store: store.process.slots),
        ("explanation", lambda store: store.process.explanations),
    ],
)
def test_there_is_room_until_all_slots_of_a_kind_are_held(make_store, kind, slots):
    store = make_store(max_in_flight=1, max_explanations=1)
    place(store, kind).check()
    with slots(store).hold(), pytest.raises(ServiceError, match="at its limit of 1"):
        place(store, kind).check()


def test_there_is_no_room_if_the_queue_is_longer_than_the_time_limit(make_store, monkeypatch):
    store = make_store(request_timeout_s=5)
    monkeypatch.setattr(Classifier, "queue_depth", 1)
    monkeypatch.setattr(Classifier, "expected_s", 6.0)
    with pytest.raises(Overloaded) as refused:
        place(store).check()
    assert refused.value.retry_after_s == 6


def test_a_long_queue_of_decoding_is_not_ready(make_store, monkeypatch):
    store = make_store()
    turns = store.process.decoders.turns
    monkeypatch.setattr(type(turns), "waiting", 7)
    monkeypatch.setattr(type(turns), "backlog_s", 16.0)
    with pytest.raises(Overloaded, match="7 images are waiting") as refused:
        store.expect_ready()
    assert refused.value.retry_after_s == 16
    store.expect_healthy()
    numbers = Scrape.of(store.metrics)
    all_queues = 3 * 7  # of any images, dear ones, and those that are decoded apart
    depth = numbers["predictor_decode_queue_depth"]
    assert (numbers["predictor_ready"], depth) == (0, all_queues)


def test_two_models_of_a_process_share_its_slots(classifier):
    second = Classifier(Settings(), lambda *_: toy_model(), process=classifier.process)
    with place(store_around(classifier)).hold():
        assert second.process.slots.held == 1
