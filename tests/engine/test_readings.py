import pytest
from prometheus_client.metrics_core import GaugeMetricFamily

from predictor.engine.readings import Readings


@pytest.fixture
def readings():
    family = GaugeMetricFamily("size", "Sizes.", labels=("kind", "pid"))
    family.add_metric(("small", "1"), 2.0)
    family.add_metric(("small", "2"), 3.0)
    family.add_metric(("large", "2"), 10.0)
    return Readings([family, GaugeMetricFamily("ready", "Whether it is.", 1.0)])


def test_total_sums_the_series_with_the_labels(readings):
    assert readings.total("size") == 15
    assert readings.total("size", kind="small") == 5
    assert readings.total("size", kind="small", pid="2") == 3


def test_the_total_of_an_unknown_metric_is_zero(readings):
    assert readings.total("weight") == readings.total("size", kind="huge") == 0


def test_values_and_labels_have_one_entry_for_each_series(readings):
    assert readings.values("size") == [2, 3, 10]
    assert readings.labels("size", "kind") == ["small", "small", "large"]


def test_series_without_a_pid_are_not_reported_by_process(readings):
    assert readings.by_process("size") == {1: 2.0, 2: 10.0}
    assert readings.by_process("ready") == {}
