import fcntl
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import time

import psutil
import pytest

from paths import ROOT
from pictures import picture
from predictor.engine.metric_files import AllProcesses, ProcessFigures, forget_worker
from running_server import ToyServer
from scrape import Scrape, series
from waiting import wait_until


def test_process_figures_are_labelled_by_pid():
    numbers = Scrape.of(ProcessFigures(lambda: [os.getpid()]))
    least = {"resident_memory_bytes": 1_000_000, "threads": threading.active_count() - 1}
    for name in (*least, "cpu_seconds_total", "open_fds", "start_time_seconds"):
        assert numbers[series(f"process_{name}", pid=os.getpid())] > least.get(name, 0)


def test_an_ended_process_has_no_figures():
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert Scrape.of(ProcessFigures(lambda: [ended.pid])) == {}


# A worker that counts some requests and ends without cleaning up.
WORKER = """
import os, sys
from predictor.engine.call import Call
from predictor.store.single import single
from predictor.settings import Settings
metrics = single(Settings(served_name="toy")).metrics
for _ in range(int(sys.argv[1])):
    metrics.record("/", "GET", 200, 0.3, Call(model="toy", version="1"), [])
metrics.refresh()
os._exit(0)
"""
TOY = {"route": "/", "model": "toy", "version": "1"}
COUNTED = series("predictor_requests_total", method="GET", status=200, **TOY)
BUCKET = series("predictor_request_duration_seconds_bucket", le="0.5", **TOY)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return tmp_path


def work(count):
    """Run a worker to its end; its process id."""
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(count)], cwd=ROOT)
    assert worker.wait(timeout=60) == 0
    return worker.pid


@pytest.mark.slow
def test_counts_of_ended_workers_stay_and_their_gauges_go(folder):
    pids = [work(1), work(2), work(4)]
    for forgotten in range(len(pids) + 1):
        numbers = Scrape.of(AllProcesses(str(folder)))
        assert (numbers[COUNTED], numbers[BUCKET]) == (7, 7)
        assert sum(name.startswith("predictor_ready") for name in numbers) == 3 - forgotten
        if forgotten < len(pids):
            forget_worker(pids[forgotten], alive=pids[forgotten + 1 :])
    assert {path.name for path in folder.iterdir()} == {"counter_0.db", "histogram_0.db", "lock"}


# A worker that serves two versions, and unloads the second one if it is told to.
UNLOADING = """
import os, sys
sys.path.insert(0, "tests")
from toy import toy_model
from predictor.engine.classifier import Classifier
from predictor.engine.metrics import Metrics
from predictor.engine.served import Served
from predictor.settings import Settings
classifier = Classifier(Settings(), lambda *_: toy_model())
classifier.start()
classifier.loading.result()
served = [Served(classifier, None, version) for version in (1, 2)]
metrics = Metrics(classifier.process, lambda: served, lambda: True)
metrics.refresh()
if "unload" in sys.argv:
    metrics.forget(served.pop())
print(*metrics.readings().labels("predictor_model_info", "version"), flush=True)
os._exit(0)
"""


@pytest.mark.slow
def test_version_is_reported_as_long_as_a_process_serves_it(folder):
    def versions(*arguments):
        command = [sys.executable, "-c", UNLOADING, *arguments]
        return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=60).stdout.split()

    assert versions("unload") == [b"1"]
    assert versions() == [b"1", b"2"]
    assert versions("unload") == [b"1", b"2"]  # the process before it has not been forgotten


def test_files_are_not_merged_during_a_scrape(folder):
    first, second = work(1), work(2)
    with open(folder / "lock", "a") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        forget_worker(first, alive=[second])
        assert (folder / f"counter_{first}.db").exists()
    forget_worker(second, alive=[])
    assert Scrape.of(AllProcesses(str(folder)))[COUNTED] == 3
    assert len(list(folder.glob("*.db"))) == 2


def test_the_empty_file_of_a_starting_worker_is_ignored(folder):
    (folder / "counter_1.db").touch()
    assert Scrape.of(AllProcesses(str(folder))) == {}


def test_a_full_disk_loses_no_counts(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    pid = work(1)
    monkeypatch.setattr(os, "posix_fallocate", full)
    forget_worker(pid, alive=[])
    assert Scrape.of(AllProcesses(str(folder)))[COUNTED] == 1


def test_without_a_folder_forget_worker_does_nothing(monkeypatch):
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    forget_worker(1, alive=[])


# A real server with two workers.


@pytest.fixture(scope="module")
def server():
    running = ToyServer("--workers", "2").wait_until_ready()
    wait_until(lambda: running.log.count("Ready at") == 2)
    yield running
    running.close()


def scrape(server):
    return Scrape(server.get("/metrics").text)


def metrics_folder(server):
    held = [Path(file.path) for file in psutil.Process(server.worker).open_files()]
    (folder,) = {path.parent for path in held if path.suffix == ".db"}
    return folder


def workers(numbers):
    return {name for name in numbers if name.startswith("predictor_ready{pid=")}


MODEL = {"model": "toy", "version": "1"}
ANSWERED = series("predictor_requests_total", route="/predict", method="POST", status=200, **MODEL)
REFUSED = series("predictor_rejected_total", reason="unsupported-image", **MODEL)
LATEST = series("predictor_last_prediction_timestamp_seconds")
INFERRED = series("predictor_batch_size_sum", **MODEL)


def test_counts_of_several_workers_add_up(server):
    before = scrape(server)
    with ThreadPoolExecutor(8) as pool:
        assert {r.status_code for r in pool.map(server.predict, [picture()] * 40)} == {200}
        assert {r.status_code for r in pool.map(server.predict, [b"text"] * 5)} == {415}
    for _ in range(10):  # either worker may answer
        numbers = scrape(server)
        assert numbers[ANSWERED] - before.get(ANSWERED, 0) == 40
        assert numbers[INFERRED] - before.get(INFERRED, 0) == 40
        assert numbers[REFUSED] - before.get(REFUSED, 0) == 5
        assert len(workers(numbers)) == 2
        assert numbers.sum("process_resident_memory_bytes") > 100_000_000


def test_a_killed_worker_leaves_its_counts_and_no_gauges(server):
    began = time()
    server.predict(picture())
    # A worker may answer with readings from before the prediction.
    before = wait_until(lambda: (numbers := scrape(server))[LATEST] >= began and numbers)
    killed = server.worker
    os.kill(killed, signal.SIGKILL)

    def replaced():
        numbers = scrape(server)
        if numbers[ANSWERED] < before[ANSWERED]:  # readings from before the prediction
            return False
        for name, value in before.items():
            if name.endswith("_total") and not name.startswith("process_"):
                assert numbers[name] >= value, name
        assert numbers[ANSWERED] == before[ANSWERED]
        alive = workers(numbers)
        return len(alive) == 2 and series("predictor_ready", pid=killed) not in alive

    wait_until(replaced)
    assert series("process_open_fds", pid=killed) not in scrape(server)


def test_a_reload_keeps_the_counts_and_accumulates_no_files(server):
    before, folder = scrape(server), metrics_folder(server)
    old = {path.name for path in folder.glob("gauge_*.db")}
    server.process.send_signal(signal.SIGHUP)
    # No scrape in the meantime: while one reads, the files of ended workers are not merged.
    wait_until(lambda: not old & {path.name for path in folder.iterdir()})
    wait_until(lambda: len(list(folder.glob("gauge_liveall_*.db"))) == 2)
    wait_until(lambda: len(list(folder.glob("counter_*.db"))) == 3)  # two workers', the merged one
    numbers = scrape(server)
    assert numbers[ANSWERED] == before[ANSWERED]
    assert len(workers(numbers)) == 2
    assert not workers(before) & workers(numbers)


@pytest.mark.server
def test_the_metrics_folder_is_private_and_removed_at_the_end():
    server = ToyServer().wait_until_ready()
    folder = metrics_folder(server)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert server.stop() == 0
    assert not folder.exists()
    server.close()
