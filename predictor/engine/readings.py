"""What the metrics say, for those who ask in other servers' terms."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.metrics_core import UnknownMetricFamily
from prometheus_client.registry import Collector

MICROSECONDS = 1e6
LABELS = ("model_name", "model_version", "hostname")
TORCHSERVE_VERSION = "1.0"  # what it calls a model's first


class Readings:
    """The numbers of one moment, of all processes."""

    def __init__(self, families: Iterable[Metric]) -> None:
        """Take them as a registry collects them."""
        self._samples = [sample for family in families for sample in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric's series that have these labels; 0 where there is none."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def values(self, name: str) -> list[float]:
        """A metric's values, one a series."""
        return [sample.value for sample in self._samples if sample.name == name]

    def labels(self, name: str, label: str) -> list[str]:
        """What a label of a metric says, one a series."""
        return [sample.labels[label] for sample in self._samples if sample.name == name]

    def by_process(self, name: str) -> dict[int, float]:
        """A metric's value in each process, by process id."""
        found = (sample for sample in self._samples if sample.name == name)
        return {int(sample.labels["pid"]): sample.value for sample in found if sample.labels}


class WithTorchServesNames(Collector):
    """What another collector has, and the part of it that TorchServe's dashboards ask for."""

    def __init__(self, source: Collector, served_name: str) -> None:
        """Take the source, and the setting; by ``auto`` it is the name that any process tells."""
        self._source, self._served_name = source, served_name

    def collect(self) -> Iterable[Metric]:
        """Read the source once; before there is a model nothing has its name."""
        families = list(self._source.collect())
        yield from families
        readings = Readings(families)
        for name in readings.labels("predictor_model_info", "name")[:1]:
            chosen = name if self._served_name == "auto" else self._served_name
            yield from _torchserves(readings, chosen)


def _torchserves(readings: Readings, model: str) -> Iterable[Metric]:
    """Its latencies are sums that grow, in microseconds, without the suffix of a counter."""
    latency = readings.total("predictor_prediction_seconds_sum") * MICROSECONDS
    queue = readings.total("predictor_queue_seconds_sum") * MICROSECONDS
    for name, text, value in (
        (
            "ts_inference_requests_total",
            "Requests for predictions.",
            readings.total("predictor_prediction_seconds_count"),
        ),
        ("ts_inference_latency_microseconds", "Their time, all together.", latency),
        ("ts_queue_latency_microseconds", "Their wait for the model, all together.", queue),
    ):
        family = UnknownMetricFamily(name, text, labels=LABELS)
        family.add_metric((model, TORCHSERVE_VERSION, socket.gethostname()), value)
        yield family
