"""Metrics under TorchServe's names, for dashboards made for TorchServe."""

import socket
from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.metrics_core import UnknownMetricFamily

from predictor.engine.metrics import Readings

VERSION = "1.0"  # TorchServe's name for a model's first version
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
    """Return TorchServe's three metrics of requests, for each served model.

    TorchServe's latencies are running sums in microseconds, named without a counter's suffix.
    """
    names = dict.fromkeys(readings.labels("predictor_predictions_total", "model"))
    for name, text, metric, factor in ALIASES:
        family = UnknownMetricFamily(name, text, labels=LABELS)
        for model in names:
            value = readings.total(f"predictor_{metric}", model=model) * factor
            family.add_metric((model, VERSION, socket.gethostname()), value)
        if names:
            yield family
