"""What is counted and measured, for Prometheus.

One process keeps its numbers in itself. Where gunicorn.conf.py has named a folder in
``PROMETHEUS_MULTIPROC_DIR``, before this module is imported, each worker keeps them in files of
its own there, and the one that is asked answers for all, the dead ones included.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from time import sleep
from typing import IO

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from predictor.engine.classifier import Classifier
from predictor.engine.readings import Readings, WithTorchServesNames
from predictor.engine.timings import Timings
from predictor.errors import PredictorError, RequestError, ServiceError

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
OUTCOMES = ("success", "fail")  # of a request: all of it answered, or not
REFRESH_S = 1.0  # a scraper comes every 15 s or so
SUMMED = ("counter", "histogram")  # outlive the process that counted
HEIR = 0  # the process that dead ones leave their counts to: no process has this id

# From a small network on a GPU to a request that has waited until the deadline.
SECONDS = tuple(step * 10**power for power in range(-4, 1) for step in (1, 2.5, 5))
SECONDS = (*(round(bound, 5) for bound in SECONDS), 10, 30, 60)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

disable_created_metrics()  # they do not exist with several processes


class Metrics:
    """The metrics of one classifier; several can live in a process that keeps them in itself."""

    def __init__(self, classifier: Classifier) -> None:
        """Begin to count; the classifier's forward passes are heard of from now on."""
        self._classifier = classifier
        self._folder = os.environ.get(FOLDER)
        self._own = CollectorRegistry()
        counter = partial(Counter, namespace="predictor", registry=self._own)
        gauge = partial(Gauge, namespace="predictor", registry=self._own)
        histogram = partial(Histogram, namespace="predictor", registry=self._own)
        seconds = partial(histogram, buckets=SECONDS)

        self.requests = counter("requests", "Requests answered.", ["route", "method", "status"])
        self.rejected = counter(
            "rejected", "Errors that callers were told, by their code; probes left out.", ["reason"]
        )
        self.predictions = counter("predictions", "Images classified.", ["model"])
        self.request_seconds = seconds(
            "request_duration_seconds", "From a request's header to its answer.", ["route"]
        )
        self.prediction_seconds = seconds(
            "prediction_seconds", "Requests whose photos were tried, by any address.", ["outcome"]
        )
        self.last_prediction = gauge(
            "last_prediction_timestamp_seconds",
            "When the last request for a prediction was answered.",
            multiprocess_mode="livemax",
        )
        self.steps = {
            "read": seconds("read_seconds", "Reading a request's body."),
            "decode": seconds("decode_seconds", "Decoding and resizing a request's images."),
            "queue": seconds("queue_seconds", "A request's wait for a forward pass."),
            "explain": seconds("explain_seconds", "An explanation, with its wait for quiet."),
        }
        self.pass_seconds = seconds("inference_seconds", "One forward pass.")
        self.batch_size = histogram("batch_size", "Images in one forward pass.", buckets=IMAGES)
        self.explanations_in_flight = gauge(
            "explanations_in_flight", "Explanations in work.", multiprocess_mode="livesum"
        )
        self._declare_what_is_read_when_asked(gauge)
        self._processes = ProcessFigures(self._pids)
        self._own.register(self._processes)
        for code in reasons():  # so that the first of a kind is seen to have come, too
            self.rejected.labels(code)
        for outcome in OUTCOMES:
            self.prediction_seconds.labels(outcome)
        classifier.on_pass = self._observe_pass

    def _declare_what_is_read_when_asked(self, gauge: Callable[..., Gauge]) -> None:
        summed = partial(gauge, multiprocess_mode="livesum")
        self._queue_depth = summed("queue_depth", "Images that wait for the model.")
        self._in_flight = summed("in_flight", "Requests in work, but for explanations.")
        self._ready = gauge(
            "ready", "Whether this process can answer: 1 or 0.", multiprocess_mode="liveall"
        )
        self._model_info = gauge(
            "model_info",
            "What is served, in the labels; always 1.",
            ["name", "version", "weights", "device", "precision"],
            multiprocess_mode="livemax",
        )

    def observe(self, timings: Timings) -> None:
        """Count where a request's time went."""
        for step, seconds in timings.known().items():
            if step in self.steps:
                self.steps[step].observe(seconds)

    def registry(self) -> CollectorRegistry:
        """What to tell a scraper that asks now."""
        self.refresh()
        source: Collector = self._own if self._folder is None else AllProcesses(self._folder)
        registry = CollectorRegistry()
        registry.register(WithTorchServesNames(source, self._classifier.settings.served_name))
        if self._folder is not None:
            registry.register(self._processes)
        return registry

    def readings(self) -> Readings:
        """The same, for a program of ours."""
        return Readings(self.registry().collect())

    def refresh(self) -> None:
        """Read from the classifier what it knows of itself."""
        classifier = self._classifier
        well = classifier.loading.done() and classifier.ailment() is None
        ready = well and not classifier.draining
        self._ready.set(ready)
        self._in_flight.set(classifier.places.taken)
        self._queue_depth.set(classifier.queue_depth)
        if ready:
            info = classifier.engine().info.public()
            labels = {name: info.get(name, "") for name in self._model_info._labelnames}
            self._model_info.labels(**labels).set(1)
            self.predictions.labels(info["name"])

    def keep_fresh(self) -> None:
        """Have what was read at hand when another process is asked; with one, it does nothing."""
        if self._folder is not None:
            threading.Thread(target=self._refresh_for_ever, name="metrics", daemon=True).start()

    def _refresh_for_ever(self) -> None:
        while True:
            self.refresh()
            sleep(REFRESH_S)

    def _observe_pass(self, images: int, seconds: float) -> None:
        self.pass_seconds.observe(seconds)
        self.batch_size.observe(images)

    def _pids(self) -> set[int]:
        if self._folder is None:
            return {os.getpid()}
        return {_pid(path) for path in Path(self._folder).glob("gauge_live*.db")}


def reasons() -> set[str]:
    """The codes of what callers can be told."""
    kinds: list[type[PredictorError]] = [RequestError, ServiceError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return {kind.code for kind in kinds}


class AllProcesses(Collector):
    """Adds up what the processes have written."""

    def __init__(self, folder: str) -> None:
        """Nothing is read before it is asked for."""
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Read all files; a process that is just being born has empty ones."""
        with _lock(self._folder, fcntl.LOCK_SH):
            files = [str(path) for path in Path(self._folder).glob("*.db") if _size(path)]
            metrics: Iterable[Metric] = MultiProcessCollector.merge(files)
            return metrics


class ProcessFigures(Collector):
    """Memory, processor time, files and threads, of each process under its id."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        """Take what tells which processes there are."""
        self._pids = pids

    def collect(self) -> Iterable[Metric]:
        """Read /proc; where there is none, there are no figures."""
        families: dict[str, Metric] = {}
        for pid in self._pids():
            for found in _figures(pid):
                empty = Metric(found.name, found.documentation, found.type)
                family = families.setdefault(found.name, empty)
                for sample in found.samples:
                    family.add_sample(sample.name, {"pid": str(pid)}, sample.value)
        return families.values()


def _figures(pid: int) -> Iterator[Metric]:
    yield from ProcessCollector(pid=lambda: pid, registry=None).collect()
    with contextlib.suppress(OSError):  # it has just ended, or there is no /proc
        threads = len(os.listdir(f"/proc/{pid}/task"))
        yield GaugeMetricFamily("process_threads", "Number of threads.", threads)


def bury(pid: int, alive: Collection[int]) -> None:
    """Forget a dead process's gauges, and keep its counts in one file for all the dead.

    For the process that has the others as its children. A scraper that holds the folder is not
    waited for: the files stay until the next one dies.

    Args:
        pid: the process that has ended.
        alive: those that count.
    """
    folder = os.environ.get(FOLDER)
    if folder is None:
        return
    mark_process_dead(pid, folder)
    with contextlib.suppress(OSError), _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
        for kind in SUMMED:
            dead = [p for p in Path(folder).glob(f"{kind}_*.db") if _pid(p) not in alive]
            if dead:
                _merge(dead, Path(folder, f"{kind}_{HEIR}.db"))


def _merge(files: list[Path], heir: Path) -> None:
    new = heir.with_suffix(".new")
    with new.open("wb") as room:  # for all: where a mapped page finds none, the process dies
        os.posix_fallocate(room.fileno(), 0, sum(map(_size, files)))
    counts = MmapedDict(str(new))
    for metric in MultiProcessCollector.merge(map(str, files), accumulate=False):
        for sample in metric.samples:
            names, values = list(sample.labels), list(sample.labels.values())
            key = mmap_key(metric.name, sample.name, names, values, metric.documentation)
            counts.write_value(key, sample.value, 0.0)
    counts.close()
    new.replace(heir)
    for file in files:
        if file != heir:
            file.unlink()


@contextlib.contextmanager
def _lock(folder: str, how: int) -> Iterator[IO[str]]:
    with open(Path(folder, "lock"), "a") as file:
        fcntl.flock(file, how)
        yield file


def _pid(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
