"""Metrics under TorchServe's names, for dashboards made for TorchServe."""

import socket
from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.metrics_core import UnknownMetricFamily

from predictor.engine.readings import Readings

# TorchServe's name and what it means, our metric, and by what its value is multiplied.
ALIASES = (
    ("ts_inference_requests_total", "Prediction requests.", "prediction_seconds_count", 1),
    ("ts_inference_latency_microseconds", "Total time of prediction requests.",
     "prediction_seconds_sum", 1e6),
    ("ts_queue_latency_microseconds", "Total wait of prediction requests for the model.",
     "queue_seconds_sum", 1e6),
)  # fmt: skip
LABELS = ("model_name", "model_version", "hostname")


def metric_aliases(readings: Readings) -> Iterable[Metric]:
    """Return TorchServe's three metrics of requests, for each version of each model.

    TorchServe's latencies are running sums in microseconds, named without a counter's suffix.
    """
    counted = "predictor_predictions_total"
    models = readings.labels(counted, "model"), readings.labels(counted, "version")
    for name, text, metric, factor in ALIASES:
        family = UnknownMetricFamily(name, text, labels=LABELS)
        for model, version in dict.fromkeys(zip(*models, strict=True)):
            value = readings.total(f"predictor_{metric}", model=model, version=version) * factor
            family.add_metric((model, as_version(version), socket.gethostname()), value)
        if family.samples:
            yield family


def as_version(version: int | str) -> str:
    """Return a version as TorchServe writes it."""
    return f"{version}.0"
