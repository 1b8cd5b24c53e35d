"""A classifier whose model does not load, fails or hangs."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from conftest import StuckModel
from pictures import picture
from predictor.engine.classifier import Classifier
from predictor.errors import (
    DeadlineExceeded,
    InferenceFailed,
    NotReady,
    WeightsError,
)
from predictor.settings import Settings
from toy import ToyModel, toy_model
from waiting import wait_until


def test_a_failed_load_is_unhealthy_and_not_ready():
    def load(*_):
        raise WeightsError("No such weights.")

    classifier = Classifier(Settings(), load)
    classifier.start()
    with pytest.raises(WeightsError):
        classifier.loading.result(timeout=10)
    with pytest.raises(NotReady, match="could not be loaded"):
        classifier.require_model()
    assert classifier.unhealthy_reason() == "The model could not be loaded."


def test_a_model_whose_warm_up_fails_leaves_no_thread():
    class Broken(ToyModel):
        def logits(self, images, lanes):
            raise RuntimeError("It does not run.")

    before = set(threading.enumerate())
    classifier = Classifier(Settings(), lambda *_: toy_model(Broken()))
    classifier.start()
    with pytest.raises(RuntimeError):
        classifier.loading.result(timeout=10)
    wait_until(lambda: not set(threading.enumerate()) - before)


def test_a_hanging_batch_is_unhealthy(make_classifier, monkeypatch):
    monkeypatch.setattr("predictor.engine.classifier.HANG_S", 0.01)
    model = StuckModel()
    classifier = make_classifier(model, request_timeout_s=0.05)
    with pytest.raises(DeadlineExceeded):
        classifier.classify([picture()])
    assert "running for" in wait_until(classifier.unhealthy_reason)
    model.let.set()


def test_a_batch_hangs_only_after_four_request_timeouts(make_classifier, monkeypatch):
    monkeypatch.setattr("predictor.engine.classifier.HANG_S", 0.0)
    model = StuckModel()
    classifier = make_classifier(model, request_timeout_s=60)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(classifier.classify, [picture()])
        assert model.entered.wait(10)
        assert classifier.unhealthy_reason() is None
        model.let.set()


def test_abandon_fails_the_requests_of_a_hanging_model(make_classifier):
    model = StuckModel()
    classifier = make_classifier(model)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(classifier.classify, [picture()])
        assert model.entered.wait(10)
        classifier.abandon()
        assert isinstance(waiting.result(timeout=10)[0], InferenceFailed)
    assert classifier.process.draining
    model.let.set()


def test_an_image_on_which_the_model_raises_fails_alone(make_classifier):
    class Moody(ToyModel):
        def logits(self, images, lanes):
            if any(image[..., 2].any() for image in images):
                raise RuntimeError("I do not like blue")
            return super().logits(images, lanes)

    classifier = make_classifier(Moody())
    blue, red = classifier.classify([picture("blue"), picture("red")])
    assert isinstance(blue, InferenceFailed)
    assert "failed on this image" in str(blue)
    assert [p.class_name for p in red] == ["red_thing"]
    assert classifier.unhealthy_reason() is None


def test_nan_logits_are_an_inference_failure(make_classifier):
    class Lost(ToyModel):
        def logits(self, images, lanes):
            return super().logits(images, lanes) * np.float32(np.nan)

    (outcome,) = make_classifier(Lost()).classify([picture()])
    assert isinstance(outcome, InferenceFailed)
    assert "contains NaN" in str(outcome)
