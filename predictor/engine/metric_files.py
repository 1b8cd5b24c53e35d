"""Metrics of several processes. Each process writes its own files, and can read all files.

prometheus_client writes a worker's numbers into files in the folder that
``PROMETHEUS_MULTIPROC_DIR`` names when prometheus_client is imported. This module adds up the files
of all workers, and merges the files of ended workers. It relies on private parts of
prometheus_client, which ``tests/test_private_apis.py`` lists.
"""

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from prometheus_client import Metric, ProcessCollector
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
SUMMED = ("counter", "histogram")  # kinds of metrics that are kept after their process has ended
MERGED_PID = 0  # in the name of the file that holds the counts of ended processes


class AllProcesses(Collector):
    """The sums of the metrics that all processes have written."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Read all files except empty ones, which belong to processes that are starting."""
        with _lock(self._folder, exclusive=False):
            files = [str(path) for path in Path(self._folder).glob("*.db") if _size(path)]
            metrics: Iterable[Metric] = MultiProcessCollector.merge(files)
            return metrics


class ProcessFigures(Collector):
    """Memory, processor time, open files and threads of each process, by its id as ``pid``."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids

    def collect(self) -> Iterable[Metric]:
        """Read /proc. Systems without it have no such metrics."""
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
    with contextlib.suppress(OSError):  # the process has just ended, or there is no /proc
        threads = len(os.listdir(f"/proc/{pid}/task"))
        yield GaugeMetricFamily("process_threads", "Number of threads.", threads)


def pids_of(folder: str | None) -> set[int]:
    """Return the ids of all processes with gauges; without a folder, only this process's id."""
    if folder is None:
        return {os.getpid()}
    return {_pid(path) for path in Path(folder).glob("gauge_live*.db")}


def forget_worker(pid: int, alive: Collection[int]) -> None:
    """Delete an ended worker's gauges, and merge its counts into one file for all ended workers.

    The master calls this function; ``alive`` are the ids of the workers whose files are kept. If a
    scrape holds the folder's lock, the next call does the merge.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        return
    mark_process_dead(pid, folder)
    with contextlib.suppress(OSError), _lock(folder, exclusive=True):
        for kind in SUMMED:
            ended = [p for p in Path(folder).glob(f"{kind}_*.db") if _pid(p) not in alive]
            if ended:
                _merge(ended, Path(folder, f"{kind}_{MERGED_PID}.db"))


def _merge(files: list[Path], merged: Path) -> None:
    new = merged.with_suffix(".new")
    with new.open("wb") as opened:  # if the disk is full, a mapped page would kill the process
        opened.write(bytes(sum(map(_size, files))))
    counts = MmapedDict(str(new))
    for metric in MultiProcessCollector.merge(map(str, files), accumulate=False):
        for sample in metric.samples:
            names, values = list(sample.labels), list(sample.labels.values())
            key = mmap_key(metric.name, sample.name, names, values, metric.documentation)
            counts.write_value(key, sample.value, 0.0)
    counts.close()
    new.replace(merged)
    for file in files:
        if file != merged:
            file.unlink()


@contextlib.contextmanager
def _lock(folder: str, *, exclusive: bool) -> Iterator[None]:
    """Lock the folder for the block. If ``exclusive``, raise BlockingIOError instead of waiting."""
    import fcntl  # here: Windows has no fcntl, and no gunicorn to start several processes

    with open(Path(folder, "lock"), "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
        yield


def _pid(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
