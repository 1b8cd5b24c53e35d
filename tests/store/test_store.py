"""The engine's interface for front ends, without Flask."""

import subprocess
import sys
from time import monotonic, sleep

import pytest
from PIL import Image
from predictor.engine.service import Service
from skimage import data

from conftest import ToyModel, toy_model
from paths import ROOT
from pictures import encode, picture
from predictor.engine.call import Call
from predictor.engine.classifier import Classifier
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

MODEL = {"model": "toy", "version": "1"}


@pytest.fixture
def make_service(make_classifier):
    return lambda model=None, **settings: Service(make_classifier(model, **settings))


@pytest.fixture
def loading(loading_classifier):
    return Service(loading_classifier)


@pytest.fixture
def failed():
    def load(*_):
        raise WeightsError("There are no weights.")

    service = Service(Classifier(Settings(), load))
    service.classifier.start()
    assert service.classifier.loading.exception(timeout=10)
    return service


# A front end of another kind: this process never imports Flask.
FRONT_END = """
import sys
from predictor.engine.call import Call
from predictor.engine.classifier import Classifier
from predictor.engine.service import Service
from predictor.settings import Settings

service = Service(Classifier(Settings(model="efficientnet_lite0")))
service.classifier.start()
service.classifier.loading.result(60)
photo, call = sys.stdin.buffer.read(), Call()
with service.admit(call):
    (predictions,) = service.classify([photo], 3, call)
with service.admit_explanation(call):
    explanation = service.explain(photo, predictions[0].class_index, call)
service.metrics.record("/Classify", "GRPC", 200, 0.1, call, [])
(counted,) = service.metrics.readings().values("predictor_requests_total")
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


def test_a_request_is_admitted_classified_and_recorded(make_service):
    service, call = make_service(), Call()
    with service.admit(call) as loaded:
        assert service.process.slots.held == 1
        (predictions,) = service.classify([picture("blue")], len(loaded.labels), call)
    service.metrics.record("/predict", "POST", 200, 0.5, call, [])
    assert predictions[0].class_name == "blue_thing"
    assert (call.model, call.class_ids) == ("toy", ["n00000002"])
    numbers = Scrape.of(service.metrics)
    assert numbers[series("predictor_predictions_total", **MODEL)] == 1
    assert numbers[series("predictor_decode_seconds_count", **MODEL)] == 1


def test_a_request_over_the_limit_is_refused_until_one_ends(make_service):
    service = make_service(max_in_flight=1)
    with (
        service.admit(Call()),
        pytest.raises(Overloaded, match="limit of 1 requests"),
        service.admit(Call()),
    ):
        pass
    with service.admit(Call()):
        pass


def test_a_refused_request_is_counted_under_its_model(make_service):
    service, call = make_service(max_in_flight=1), Call()
    with service.admit(Call()), pytest.raises(Overloaded), service.admit(call):
        pass
    assert call.model == "toy"


@pytest.mark.parametrize("admit", ["admit", "admit_explanation"])
def test_a_request_is_not_admitted_while_the_model_loads(loading, admit):
    call = Call()
    with pytest.raises(NotReady, match="is loading"), getattr(loading, admit)(call):
        pass
    assert call.model == ""
    assert loading.process.slots.held == 0


def test_explanations_have_their_own_limit_and_gauge(make_service):
    service = make_service(max_explanations=1, max_in_flight=1)
    with service.admit(Call()), service.admit_explanation(Call()):
        assert Scrape.of(service.metrics)["predictor_explanations_in_flight"] == 1
        with (
            pytest.raises(ExplainerBusy, match="limit of 1 explanations"),
            service.admit_explanation(Call()),
        ):
            pass
    assert Scrape.of(service.metrics)["predictor_explanations_in_flight"] == 0


def test_without_explanations_there_is_no_explainer(make_service):
    assert make_service(max_explanations=0).explainer is None


class Slow(ToyModel):
    """Each image takes 0.1 s."""

    max_batch_size, warm_up_sizes = 1, {1}

    def logits(self, images, lanes):
        sleep(0.1 if images[0].any() else 0)
        return super().logits(images, lanes)


def test_all_images_of_a_request_share_one_deadline(make_service):
    service = make_service(Slow(), request_timeout_s=0.25)
    with pytest.raises(DeadlineExceeded):
        service.classify([picture()] * 5, 1, Call())


def test_all_explanations_of_a_request_share_one_deadline(make_service):
    service, call = make_service(Slow(), request_timeout_s=0.25), Call()
    with pytest.raises(ExplainerBusy):
        [service.explain(picture(), None, call) for _ in range(5)]


STEPS = {
    "classify": lambda service, call: service.classify([picture()], 1, call),
    "logits": lambda service, call: service.logits([picture()], call),
    "explain": lambda service, call: service.explain(picture(), None, call),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_predictions_and_explanations_have_the_same_deadline(make_service, step):
    service, call = make_service(request_timeout_s=60), Call()
    began = monotonic()
    step(service, call)
    assert began + 60 <= call.deadline <= monotonic() + 60


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_later_step_of_a_request_keeps_its_deadline(make_service, step):
    service, call = make_service(request_timeout_s=60), Call()
    service.classify([picture()], 1, call)
    first = call.deadline
    step(service, call)
    assert call.deadline == first


def test_the_served_model_and_version_are_accepted(make_service):
    make_service().expect_model("toy", "1", ["1", "all"])
    make_service(served_name="flowers").expect_model("flowers", "all", ["1", "all"])


def test_an_unknown_model_or_version_is_an_error(make_service):
    service = make_service()
    with pytest.raises(UnknownModel, match="no model 'cat'. This server has 'toy'"):
        service.expect_model("cat", "1", ["1"])
    with pytest.raises(UnknownVersion, match="no version '2'. It has '1' or 'all'"):
        service.expect_model("toy", "2", ["1", "all"])


def test_a_loading_model_is_healthy_and_not_ready(loading):
    loading.expect_healthy()
    with pytest.raises(NotReady, match="is loading"):
        loading.expect_ready()
    with pytest.raises(NotReady):
        loading.expect_model("toy", "1", ["1"])


def test_a_failed_load_is_not_healthy(failed):
    for check in (failed.expect_healthy, failed.expect_ready):
        with pytest.raises(InferenceFailed, match="could not be loaded"):
            check()


def test_a_loaded_model_is_ready_until_the_process_drains(make_service):
    service = make_service()
    assert service.expect_ready() is service.require_model()
    service.classifier.process.draining = True
    service.expect_healthy()
    with pytest.raises(NotReady, match="shutting down"):
        service.expect_ready()


@pytest.mark.parametrize(
    ("kind", "slots"),
    [
        ("prediction", lambda service: service.process.slots),
        ("explanation", lambda service: service.explainer.slots),
    ],
)
def test_there_is_room_until_all_slots_of_a_kind_are_held(make_service, kind, slots):
    service = make_service(max_in_flight=1, max_explanations=1)
    assert service.expect_room(kind) is slots(service)
    with slots(service).hold(), pytest.raises(ServiceError, match="at its limit of 1"):
        service.expect_room(kind)


def test_there_is_no_room_if_the_queue_is_longer_than_the_time_limit(make_service, monkeypatch):
    service = make_service(request_timeout_s=5)
    monkeypatch.setattr(Classifier, "queue_depth", 1)
    monkeypatch.setattr(Classifier, "backlog_s", 6.0)
    with pytest.raises(Overloaded) as refused:
        service.expect_room("prediction")
    assert refused.value.retry_after_s == 6


def test_a_call_whose_slot_is_taken_takes_no_second_one(make_service):
    service = make_service(max_in_flight=1)
    service.expect_room("prediction").take()
    with service.admit(Call(has_slot=True)):
        assert service.process.slots.held == 1


def test_a_long_queue_of_decoding_is_not_ready(make_service, monkeypatch):
    service = make_service()
    turns = service.classifier.process.decoders.turns
    monkeypatch.setattr(type(turns), "waiting", 7)
    monkeypatch.setattr(type(turns), "backlog_s", 16.0)
    with pytest.raises(Overloaded, match="7 images are waiting") as refused:
        service.expect_ready()
    assert refused.value.retry_after_s == 16
    service.expect_healthy()
    numbers = Scrape.of(service.metrics)
    both_queues = 2 * 7  # cheap and dear images
    depth = numbers["predictor_decode_queue_depth"]
    assert (numbers["predictor_ready"], depth) == (0, both_queues)


def test_two_models_of_a_process_share_its_slots(classifier):
    second = Classifier(Settings(), lambda *_: toy_model(), process=classifier.process)
    with Service(classifier).admit(Call()):
        assert second.process.slots.held == 1
