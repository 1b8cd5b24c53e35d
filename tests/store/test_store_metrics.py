"""What the metrics say of versions that come and go, and of a store that cannot be read."""

import pytest

from pictures import picture
from predictor.engine.admission import Process
from predictor.engine.call import Call
from predictor.engine.classifier import Classifier
from predictor.errors import ModelError, StoreError
from predictor.settings import Settings
from predictor.store.store import Store
from predictor.store.wanted import Entry, Route, Wanted
from predictor.web.protocols.torchserve.metrics import metric_aliases
from scrape import Scrape, series
from toy import toy_model
from waiting import wait_until


def wanted(*versions, signature="a"):
    entries = {("toy", v): Entry("toy", v, None, signature) for v in versions}
    return Wanted(entries, {"toy": Route(versions, versions[0], {})}, "toy")


class Files:
    """What a store reads: a test changes it."""

    state, broken = wanted(1, 2), ()

    def read(self):
        if isinstance(self.state, Exception):
            raise self.state
        return self.state


@pytest.fixture
def files():
    return Files()


@pytest.fixture
def store(files):
    settings = Settings()
    process = Process(settings)

    def make(entry):
        def load(*_):
            if entry.version in files.broken:
                raise ModelError("The file is damaged.")
            return toy_model()

        return Classifier(settings, load, process)

    store = Store(settings, process, files.read, make)
    yield store
    store.close()


def failed(version):
    return series("predictor_model_failed", model="toy", version=version)


def is_served(numbers, version):
    return series("predictor_model_info", name="toy", version=version, weights="toy.pth") in numbers


def test_version_that_cannot_be_loaded_is_reported_until_it_is_not_wanted(store, files):
    files.broken = {2}
    store.start()
    wait_until(lambda: Scrape.of(store.metrics).get(failed(2)) == 1)
    numbers = Scrape.of(store.metrics)
    assert (numbers[failed(1)], is_served(numbers, 1), is_served(numbers, 2)) == (0, True, False)
    files.state = wanted(1)
    store.follow()
    wait_until(lambda: Scrape.of(store.metrics)[failed(2)] == 0)


def test_corrected_version_is_not_reported_any_more(store, files):
    files.broken = {2}
    store.start()
    wait_until(lambda: Scrape.of(store.metrics).get(failed(2)) == 1)
    files.broken, files.state = (), wanted(1, 2, signature="b")
    store.follow()
    wait_until(lambda: Scrape.of(store.metrics)[failed(2)] == 0)
    wait_until(lambda: is_served(Scrape.of(store.metrics), 2))


def test_unloaded_version_is_not_reported_as_served(store, files):
    store.start()
    store.loading.result(10)
    assert is_served(Scrape.of(store.metrics), 2)
    files.state = wanted(1)
    store.follow()
    wait_until(lambda: not is_served(Scrape.of(store.metrics), 2))
    assert is_served(Scrape.of(store.metrics), 1)


def test_store_that_cannot_be_read_is_reported_until_it_can(store, files):
    store.start()
    store.loading.result(10)
    assert Scrape.of(store.metrics)["predictor_store_failed"] == 0
    for state, value in (StoreError("store.toml cannot be read."), 1), (wanted(1), 0):
        files.state = state
        store.follow()
        wait_until(lambda value=value: Scrape.of(store.metrics)["predictor_store_failed"] == value)


def test_versions_are_counted_apart_also_under_the_names_of_torchserve(store):
    store.metrics.add_alias(metric_aliases)
    store.start()
    store.loading.result(10)
    for version, photos in (1, 1), (2, 3):
        call = Call(model="toy", version=str(version))
        store.resolve("toy", str(version)).classify([picture("red")] * photos, 1, call)
        store.metrics.record("/predict", "POST", 200, 0.5, call, [])
    readings = store.metrics.readings()
    for version, photos in ("1", 1), ("2", 3):
        labels = {"model": "toy", "version": version}
        assert readings.total("predictor_confidence_count", **labels) == photos
        assert readings.total("predictor_predicted_classes_total", **labels) == photos
        theirs = {"model_name": "toy", "model_version": f"{version}.0"}
        assert readings.total("ts_inference_requests_total", **theirs) == 1
