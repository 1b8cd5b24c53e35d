"""The metrics for Prometheus.

A single process keeps the metrics in memory. If ``PROMETHEUS_MULTIPROC_DIR`` names a folder when
this module is imported, each worker keeps its metrics in files in that folder, and every worker
reports the sums over all workers (:mod:`predictor.engine.metric_files`).
"""

import os
import threading
from collections.abc import Callable, Collection, Iterable
from functools import cache, partial
from time import monotonic, sleep

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
)

from predictor.engine.admission import Process
from predictor.engine.call import Call
from predictor.engine.metric_files import FOLDER_VARIABLE, AllProcesses, ProcessFigures, pids_of
from predictor.engine.readings import Readings
from predictor.engine.served import Served
from predictor.errors import NotExplainable, codes

MODEL = ("model", "version")  # labels; empty for a request that concerns no model
INFO = ("name", "version", "weights", "device", "precision")  # labels of model_info
OUTCOMES = ("success", "fail")  # of a request: whether every image was answered
REFRESH_S = 1.0  # seconds; Prometheus scrapes about every 15 s
MAX_AGE_S = 1.0  # of readings from files

# Bounds in seconds, from one pass of a small network on a GPU to a wait until the deadline.
SECONDS = tuple(step * 10**power for power in range(-4, 1) for step in (1, 2.5, 5))
SECONDS = (*(round(bound, 5) for bound in SECONDS), 10, 30, 60)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONFIDENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
# Classes of each version that are counted by name: those with the smallest index, because all
# processes and all versions with the same labels must count the same ones. Others are ``OTHER``.
CLASSES, OTHER = 1000, "other"


class Metrics:
    """The metrics of the models of one process."""

    def __init__(
        self, process: Process, served: Callable[[], Iterable[Served]], ready: Callable[[], bool]
    ) -> None:
        """Declare the metrics. ``served`` returns what is served, and ``ready`` whether it can."""
        disable_created_metrics()  # ``_created`` series do not exist with several processes
        self._process, self._served, self._is_ready = process, served, ready
        self._folder = os.environ.get(FOLDER_VARIABLE)
        self._reading, self._readings, self._stale_at = threading.Lock(), Readings(()), 0.0
        self._own = CollectorRegistry()
        self._aliases: list[Callable[[Readings], Iterable[Metric]]] = []
        self._declare_requests()
        self._declare_steps()
        self._declare_gauges()
        self._processes = ProcessFigures(partial(pids_of, self._folder))
        self._own.register(self._processes)
        # Export every code as 0 from the start, so that the first error of a kind is an increase.
        for code in codes():
            self.rejected.labels(code, "", "")

    def _declare_requests(self) -> None:
        counter = partial(Counter, namespace="predictor", registry=self._own)
        seconds = partial(Histogram, namespace="predictor", registry=self._own, buckets=SECONDS)
        self.requests = counter(
            "requests", "Requests answered.", ["route", "method", "status", *MODEL]
        )
        self.rejected = counter(
            "rejected", "Errors sent to clients, by code; without those of probes.",
            ["reason", *MODEL],
        )  # fmt: skip
        self.predictions = counter("predictions", "Images classified.", MODEL)
        self._predicted = counter("predicted_classes", "Images by best class.", [*MODEL, "class"])
        self._request_seconds = seconds(
            "request_duration_seconds", "From a request's header to its response.",
            ["route", *MODEL],
        )  # fmt: skip
        self._prediction_seconds = seconds(
            "prediction_seconds", "Requests that reached decoding, on any route.",
            ["outcome", *MODEL],
        )  # fmt: skip
        self._last_prediction = Gauge(
            "last_prediction_timestamp_seconds",
            "When the last prediction request was answered.",
            namespace="predictor", registry=self._own, multiprocess_mode="livemax",
        )  # fmt: skip

    def _declare_steps(self) -> None:
        histogram = partial(Histogram, namespace="predictor", registry=self._own)
        seconds = partial(histogram, labelnames=MODEL, buckets=SECONDS)
        self._steps = {
            "decode": seconds("decode_seconds", "Decoding and resizing a request's images."),
            "queue": seconds("queue_seconds", "A request's wait for a forward pass."),
            "explain": seconds("explain_seconds", "An explanation, with its wait in the queue."),
        }
        self._read_seconds = histogram("read_seconds", "Reading a request's body.", buckets=SECONDS)
        self._pass_seconds = seconds("inference_seconds", "One forward pass.")
        self._batch_size = histogram(
            "batch_size", "Images in one forward pass.", labelnames=MODEL, buckets=IMAGES
        )
        self._confidence = histogram(
            "confidence", "Probability of an image's best class.", MODEL, buckets=CONFIDENCE
        )

    def _declare_gauges(self) -> None:
        """Declare the metrics that :meth:`refresh` sets."""
        gauge = partial(Gauge, namespace="predictor", registry=self._own)
        summed = partial(gauge, multiprocess_mode="livesum")
        self._explanations_in_flight = summed("explanations_in_flight", "Explanations in progress.")
        self._queue_depth = summed("queue_depth", "Images that wait for the model.", MODEL)
        self._decode_queue_depth = summed("decode_queue_depth", "Images that wait to be decoded.")
        self._in_flight = summed("in_flight", "Requests in progress, without explanations.")
        each = partial(gauge, multiprocess_mode="liveall")
        latest = partial(gauge, multiprocess_mode="livemax")
        self._ready = each("ready", "Whether this process can answer: 1 or 0.")
        self._model_info = latest("model_info", "The served model, in the labels; always 1.", INFO)
        self._failed: set[tuple[str, int]] = set()
        self._model_failed = latest("model_failed", "1 if a version cannot be loaded, or 0.", MODEL)
        self._store_failed = latest("store_failed", "1 if the store cannot be followed, or 0.")

    def record(
        self,
        route: str,
        method: str,
        status: int,
        seconds: float,
        call: Call,
        codes: Collection[str],
    ) -> None:
        """Count an answered request, with the call's ``model`` as a label.

        ``route`` is the URL rule, and ``codes`` name the errors sent to the client. Each new route
        or method adds a permanent series: pass only names from a small set.
        """
        labels = call.model, call.version
        if call.model or codes:
            self._stale_at = 0.0
        self.requests.labels(route, method, status, *labels).inc()
        self._request_seconds.labels(route, *labels).observe(seconds)
        for step, step_s in call.timings.known().items():
            if step in self._steps and NotExplainable.code not in codes:
                self._steps[step].labels(*labels).observe(step_s)
        if call.timings.read is not None:
            self._read_seconds.observe(call.timings.read)
        if call.timings.decode is not None:
            outcome = "success" if status < 400 else "fail"
            self._prediction_seconds.labels(outcome, *labels).observe(seconds)
            self._last_prediction.set_to_current_time()
        for code in codes:
            self.rejected.labels(code, *labels).inc()
        if call.class_ids:
            self.predictions.labels(*labels).inc(len(call.class_ids))

    def add_alias(self, alias: Callable[[Readings], Iterable[Metric]]) -> None:
        """Also export the metrics that ``alias`` computes from a snapshot of all metrics."""
        self._aliases.append(alias)

    def readings(self) -> Readings:
        """Return all metrics.

        If many scrapes read the files of all processes, that takes a tenth of one processor: the
        readings are used again for nine times as long as they took, or until this process counts
        a prediction or an error.
        """
        with self._reading:
            if self._folder is None or monotonic() >= self._stale_at:
                began = monotonic()
                self._readings = self._read()
                self._stale_at = monotonic() + min(9 * (monotonic() - began), MAX_AGE_S)
            return self._readings

    def _read(self) -> Readings:
        self.refresh()
        source = self._own if self._folder is None else AllProcesses(self._folder)
        families = list(source.collect())
        for family in families:
            if family.name == "predictor_model_info":  # 0: served no longer, by no process
                family.samples = [sample for sample in family.samples if sample.value]
        read = Readings(families)
        for alias in self._aliases:
            families += alias(read)
        if self._folder is not None:
            families += self._processes.collect()
        return Readings(families)

    def refresh(self) -> None:
        """Set the gauges from the state of the process and of each model."""
        process = self._process
        self._ready.set(self._is_ready())
        self._in_flight.set(process.slots.held)
        self._explanations_in_flight.set(process.explanations.held)
        self._decode_queue_depth.set(process.decoders.waiting)
        for one in self._served():
            labels = labels_of(one)
            self._queue_depth.labels(*labels).set(one.classifier.queue_depth)
            self._info(one).set(1)
            # Export 0 from the start, so that the first request is an increase.
            for metric in (self.predictions, self._pass_seconds, self._batch_size):
                metric.labels(*labels)
            for step in (*self._steps.values(), self._confidence):
                step.labels(*labels)
            for outcome in OUTCOMES:
                self._prediction_seconds.labels(outcome, *labels)

    def keep_fresh(self) -> None:
        """Start a thread that refreshes the gauges each second: any process may answer a scrape."""
        if self._folder is not None:
            threading.Thread(target=self._refresh_for_ever, name="metrics", daemon=True).start()

    def _refresh_for_ever(self) -> None:
        while True:
            with self._reading:
                self.refresh()
            sleep(REFRESH_S)

    def count(self, served: Served) -> None:
        """Begin to count the forward passes of a model, and its answers."""
        labels, names = labels_of(served), served.model.labels[:CLASSES]
        confidence = self._confidence.labels(*labels)
        self._model_failed.labels(*labels).set(0)

        def ran(images: int, seconds: float) -> None:
            self._pass_seconds.labels(*labels).observe(seconds)
            self._batch_size.labels(*labels).observe(images)

        @cache  # looking up a series by its labels takes 3 µs
        def predicted(index: int) -> Counter:
            name = names[index].class_id if index < CLASSES else OTHER
            return self._predicted.labels(*labels, name)

        def answered(index: int, probability: float) -> None:
            confidence.observe(probability)
            predicted(min(index, CLASSES)).inc()

        served.classifier.on_pass.append(ran)
        served.classifier.on_answer.append(answered)

    def note_failures(self, versions: set[tuple[str, int]], store: str | None) -> None:
        """Set which versions cannot be loaded, and whether the store cannot be followed."""
        self._store_failed.set(store is not None)
        for key in versions | self._failed:
            self._model_failed.labels(*key).set(key in versions)
        self._failed = versions

    def forget(self, served: Served) -> None:
        """Say that a version is not served any more. Its counters stay."""
        with self._reading:  # a refresh that began before could say the opposite
            self._info(served).set(0)
            self._queue_depth.labels(*labels_of(served)).set(0)

    def _info(self, served: Served) -> Gauge:
        info = served.model.info.public() | {"name": served.name, "version": str(served.version)}
        return self._model_info.labels(*(info.get(name, "") for name in INFO))


def labels_of(served: Served) -> tuple[str, str]:
    """Return the values of the labels ``MODEL``."""
    return served.name, str(served.version)
