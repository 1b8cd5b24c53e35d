import pytest
from prometheus_client.metrics_core import GaugeMetricFamily

from conftest import store_around
from pictures import picture
from predictor.engine.call import Call, Timings
from predictor.engine.metrics import Metrics
from predictor.engine.served import Served
from predictor.errors import NotExplainable, PredictorError, codes
from scrape import Scrape, series
from test_errors import tree
from toy import ToyModel

MODEL = {"model": "toy", "version": "1"}


def record(metrics, status=200, seconds=0.5, call=None, codes=()):
    metrics.record("/predict", "POST", status, seconds, call or Call(**MODEL), codes)


def test_two_metrics_in_one_process_count_independently(make_classifier):
    first, second = (store_around(make_classifier()).metrics for _ in range(2))
    record(first)
    assert Scrape.of(first).sum("predictor_requests_total") == 1
    assert Scrape.of(second).sum("predictor_requests_total") == 0


def test_forward_passes_are_measured_without_the_warm_up(make_classifier):
    model = ToyModel()
    classifier = make_classifier(model)
    metrics, warm_up = store_around(classifier).metrics, len(model.batches)
    classifier.classify([picture()] * 5)
    numbers, passes = Scrape.of(metrics), len(model.batches) - warm_up
    assert numbers[series("predictor_batch_size_sum", **MODEL)] == 5
    assert numbers[series("predictor_batch_size_count", **MODEL)] == passes
    assert numbers[series("predictor_inference_seconds_count", **MODEL)] == passes


def test_a_request_is_counted_by_route_method_status_and_model(classifier):
    metrics = store_around(classifier).metrics
    record(metrics, 200)
    record(metrics, 415)
    record(metrics, 415)
    numbers = Scrape.of(metrics)
    for status, count in ((200, 1), (415, 2)):
        labels = {"route": "/predict", "method": "POST", "status": status, **MODEL}
        assert numbers[series("predictor_requests_total", **labels)] == count


def test_a_request_without_a_model_has_no_model_label(classifier):
    metrics = store_around(classifier).metrics
    metrics.record("/healthz", "GET", 200, 0.1, Call(), [])
    name = series("predictor_requests_total", route="/healthz", method="GET", status=200)
    assert Scrape.of(metrics)[name] == 1


def test_steps_that_a_request_did_not_reach_are_not_counted(classifier):
    metrics = store_around(classifier).metrics
    record(metrics, call=Call(timings=Timings(read=0.1, decode=0.2), **MODEL))
    numbers = Scrape.of(metrics)
    assert numbers["predictor_read_seconds_sum"] == 0.1
    assert numbers[series("predictor_decode_seconds_sum", **MODEL)] == 0.2
    assert numbers.sum("predictor_queue_seconds_count") == 0


def test_explanation_of_a_model_that_has_none_is_not_measured(classifier):
    metrics, timings = store_around(classifier).metrics, Timings(read=0.1, explain=0.2)
    record(metrics, 501, call=Call(timings=timings, **MODEL), codes=[NotExplainable.code])
    record(metrics, 503, call=Call(timings=timings, **MODEL), codes=["explainer-busy"])
    numbers = Scrape.of(metrics)
    assert numbers[series("predictor_explain_seconds_count", **MODEL)] == 1
    assert numbers["predictor_read_seconds_count"] == 2


def test_only_requests_with_an_image_count_as_predictions(classifier):
    metrics = store_around(classifier).metrics
    record(metrics, 400)
    assert Scrape.of(metrics).sum("predictor_prediction_seconds_count") == 0
    record(metrics, 200, 0.5, Call(timings=Timings(decode=0.2), **MODEL))
    record(metrics, 422, 0.1, Call(timings=Timings(decode=0.1), **MODEL))
    numbers = Scrape.of(metrics)
    for outcome, seconds in (("success", 0.5), ("fail", 0.1)):
        name = series("predictor_prediction_seconds_sum", outcome=outcome, **MODEL)
        assert numbers[name] == seconds


def test_answered_images_and_error_codes_are_counted(classifier):
    metrics = store_around(classifier).metrics
    record(
        metrics,
        call=Call(**MODEL, class_ids=["n1", "n2"]),
        codes=["damaged-image"] * 2,
    )
    numbers = Scrape.of(metrics)
    assert numbers[series("predictor_predictions_total", **MODEL)] == 2
    assert numbers[series("predictor_rejected_total", reason="damaged-image", **MODEL)] == 2


def test_answers_are_counted_by_class_and_by_probability(classifier):
    metrics = store_around(classifier).metrics
    classifier.classify([picture("blue")] * 2 + [b"no photo"])
    numbers = Scrape.of(metrics)
    blue = {"class": "n00000002", **MODEL}
    assert numbers[series("predictor_predicted_classes_total", **blue)] == 2
    assert numbers.sum("predictor_predicted_classes_total") == 2
    assert numbers[series("predictor_confidence_bucket", le="0.95", **MODEL)] == 0
    assert numbers[series("predictor_confidence_bucket", le="1.0", **MODEL)] == 2


def test_classes_beyond_the_bound_are_counted_together(make_classifier, monkeypatch):
    monkeypatch.setattr("predictor.engine.metrics.CLASSES", 1)
    classifier = make_classifier()
    metrics = store_around(classifier).metrics
    classifier.classify([picture(colour) for colour in ("red", "green", "blue")])
    numbers = Scrape.of(metrics)
    for name, count in ("n00000000", 1), ("other", 2):
        labels = {"class": name, **MODEL}
        assert numbers[series("predictor_predicted_classes_total", **labels)] == count


def test_an_unloaded_version_is_not_reported_as_served(classifier):
    served = [Served(classifier, None, version) for version in (1, 2)]
    metrics = Metrics(classifier.process, lambda: served, lambda: True)
    info = {
        v: series("predictor_model_info", name="toy", version=v, weights="toy.pth") for v in "12"
    }
    assert info["1"] in Scrape.of(metrics)
    metrics.forget(served.pop(0))
    numbers = Scrape.of(metrics)
    assert (info["1"] in numbers, numbers[info["2"]]) == (False, 1)


@pytest.mark.parametrize("seconds", [0.0002, 0.003, 0.07, 1.2, 20])
def test_bucket_bounds_span_the_times_of_gpus_and_cpus(classifier, seconds):
    metrics = store_around(classifier).metrics
    record(metrics, call=Call(timings=Timings(queue=seconds), **MODEL))
    numbers = Scrape.of(metrics)
    for bound, count in (("0.0001", 0), ("30.0", 1)):
        assert numbers[series("predictor_queue_seconds_bucket", le=bound, **MODEL)] == count


def test_gauges_are_read_from_the_classifier_at_each_scrape(classifier):
    store = store_around(classifier)
    metrics = store.metrics
    with classifier.process.slots.hold():
        numbers = Scrape.of(metrics)
    assert (numbers["predictor_ready"], numbers["predictor_in_flight"]) == (1, 1)
    assert numbers[series("predictor_queue_depth", **MODEL)] == 0
    info = series("predictor_model_info", name="toy", version="1", weights="toy.pth")
    assert numbers[info] == 1
    assert Scrape.of(metrics)["predictor_in_flight"] == 0
    store.close()
    assert Scrape.of(metrics)["predictor_ready"] == 0


def test_a_loading_model_has_no_series_yet(loading_classifier):
    numbers = Scrape.of(store_around(loading_classifier).metrics)
    assert numbers["predictor_ready"] == 0
    assert not any("model=" in name or "model_info" in name for name in numbers)


def test_a_draining_process_is_not_ready(classifier):
    metrics = store_around(classifier).metrics
    classifier.process.draining = True
    assert Scrape.of(metrics)["predictor_ready"] == 0


def test_every_error_code_has_a_series_from_the_start(classifier):
    expected = {error.code for error in tree() if error is not PredictorError} - {"not-started"}
    assert codes() == expected
    names = {series("predictor_rejected_total", reason=code) for code in expected}
    assert names <= Scrape.of(store_around(classifier).metrics).keys()


def test_aliases_are_computed_from_the_metrics_of_the_scrape(classifier):
    def alias(readings):
        yield GaugeMetricFamily("ts_ready", "As elsewhere.", readings.total("predictor_ready"))

    metrics = store_around(classifier).metrics
    metrics.add_alias(alias)
    assert Scrape.of(metrics)["ts_ready"] == 1
    assert metrics.readings().values("ts_ready") == [1]


@pytest.fixture
def from_files(classifier, monkeypatch, tmp_path):
    """Metrics in files. Each reading takes 10 ms on a clock that only the test advances."""

    class Files:
        now, reads = 100.0, 0

        def collect(self):
            self.now, self.reads = self.now + 0.01, self.reads + 1
            return []

    files = Files()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr("predictor.engine.metrics.AllProcesses", lambda _folder: files)
    monkeypatch.setattr("predictor.engine.metrics.monotonic", lambda: files.now)
    return store_around(classifier).metrics, files


def test_many_scrapes_read_the_files_a_tenth_of_the_time(from_files):
    metrics, files = from_files
    began = files.now
    for _ in range(1000):
        metrics.readings()
        files.now += 0.001
    assert files.reads * 0.01 == pytest.approx((files.now - began) / 10, rel=0.1)


def test_readings_are_written_once_in_each_format(classifier):
    readings, written = store_around(classifier).metrics.readings(), []
    for kind in ("text/plain", "application/openmetrics-text") * 2:
        assert readings.text(lambda _, kind=kind: written.append(kind) or kind, kind) == kind
    assert written == ["text/plain", "application/openmetrics-text"]


def test_after_a_prediction_or_an_error_readings_are_new(from_files):
    metrics, _ = from_files
    for call, sent in ((Call(**MODEL), ()), (Call(), ["not-found"])):
        before = metrics.readings()
        assert metrics.readings() is before
        metrics.record("/", "GET", 200, 0.1, call, sent)
        assert metrics.readings() is not before


def test_readings_in_memory_are_always_new(classifier):
    metrics = store_around(classifier).metrics
    assert metrics.readings() is not metrics.readings()
