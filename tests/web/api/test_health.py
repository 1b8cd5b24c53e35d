import pytest

from app import create_app
from conftest import ToyInfo
from predictor.engine.classifier import Classifier
from predictor.errors import WeightsError
from predictor.settings import Settings


@pytest.fixture
def loading():
    """A classifier that is for ever being loaded."""
    classifier = Classifier(Settings())
    classifier.start = lambda: None
    return classifier


@pytest.fixture
def probe():
    def get(classifier, path):
        return create_app(classifier.settings, classifier).test_client().get(path)

    return get


def test_a_ready_app_is_alive_and_names_its_model(client):
    assert client.get("/healthz").json == {"status": "alive"}
    assert client.get("/readyz").json == {"status": "ready", "model": ToyInfo().public()}


def test_a_loading_app_is_alive_and_not_ready(probe, loading):
    assert probe(loading, "/healthz").status_code == 200
    response = probe(loading, "/readyz")
    assert response.status_code == 503
    assert response.headers["Retry-After"]


def test_an_app_whose_model_could_not_be_loaded_is_neither(probe, loading):
    loading.loading.set_exception(WeightsError("A path on our machine."))
    for path in ("/healthz", "/readyz"):
        response = probe(loading, path)
        assert response.status_code == 500
        assert "path on our machine" not in response.text


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_an_app_whose_inference_thread_ended_is_neither(probe, classifier, path):
    classifier.close()
    assert probe(classifier, path).status_code == 500


def test_an_app_whose_inference_thread_hangs_is_neither(probe, classifier, monkeypatch):
    monkeypatch.setattr("predictor.engine.batching.Batcher.busy_s", 121.0)
    assert "121 s" in probe(classifier, "/healthz").json["detail"]
