import fcntl
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from predictor.engine.timings import Timings
from prometheus_client import CollectorRegistry, generate_latest

from conftest import ToyModel
from pictures import picture
from predictor.engine.metrics import AllProcesses, Metrics, ProcessFigures, forget_worker, reasons
from predictor.errors import PredictorError
from running_server import ROOT, Server
from scrape import Scrape
from test_errors import tree
from waiting import wait_until


def told(source):
    """What a scraper is told by metrics, or by a collector."""
    if isinstance(source, Metrics):
        return Scrape(generate_latest(source.registry()).decode())
    registry = CollectorRegistry()
    registry.register(source)
    return Scrape(generate_latest(registry).decode())


def test_several_can_live_in_one_process_and_count_for_themselves(make_classifier):
    first, second = (Metrics(make_classifier()) for _ in range(2))
    first.requests.labels("/", "GET", 200).inc()
    assert told(first).sum("predictor_requests_total") == 1
    assert told(second).sum("predictor_requests_total") == 0


def test_forward_passes_are_measured_and_the_warm_up_is_not(make_classifier):
    model = ToyModel()
    classifier = make_classifier(model)
    metrics, warm_up = Metrics(classifier), len(model.batches)
    classifier.classify([picture()] * 5)
    numbers = told(metrics)
    assert numbers["predictor_batch_size_sum"] == 5
    assert numbers["predictor_batch_size_count"] == len(model.batches) - warm_up
    assert numbers["predictor_inference_seconds_count"] == len(model.batches) - warm_up


def test_steps_that_a_request_did_not_come_to_are_not_counted(classifier):
    metrics = Metrics(classifier)
    metrics.observe(Timings(read=0.1, decode=0.2))
    numbers = told(metrics)
    assert numbers["predictor_read_seconds_sum"] == 0.1
    assert numbers["predictor_decode_seconds_count"] == 1
    assert numbers["predictor_queue_seconds_count"] == 0


@pytest.mark.parametrize("seconds", [0.0002, 0.003, 0.07, 1.2, 20])
def test_a_gpus_and_a_cpus_seconds_fall_between_the_first_and_the_last_bound(classifier, seconds):
    metrics = Metrics(classifier)
    metrics.observe(Timings(queue=seconds))
    numbers = told(metrics)
    assert numbers['predictor_queue_seconds_bucket{le="0.0001"}'] == 0
    assert numbers['predictor_queue_seconds_bucket{le="30.0"}'] == 1


def test_what_the_classifier_knows_of_itself_is_read_when_asked(classifier):
    metrics = Metrics(classifier)
    with classifier.process.slots.hold():
        numbers = told(metrics)
    assert (numbers["predictor_ready"], numbers["predictor_in_flight"]) == (1, 1)
    assert numbers["predictor_queue_depth"] == 0
    assert numbers['predictor_model_info{name="toy",weights="toy.pth"}'] == 1
    assert told(metrics)["predictor_in_flight"] == 0
    classifier.close()
    assert told(metrics)["predictor_ready"] == 0


def test_every_error_that_a_caller_can_be_told_has_its_series_from_the_start(classifier):
    codes = {error.code for error in tree() if error is not PredictorError}
    served = {f'predictor_rejected_total{{reason="{code}"}}' for code in codes - {"not-started"}}
    assert served == {f'predictor_rejected_total{{reason="{code}"}}' for code in reasons()}
    assert served <= told(Metrics(classifier)).keys()


def test_a_process_is_told_by_its_id():
    numbers = told(ProcessFigures(lambda: [os.getpid()]))
    label = f'{{pid="{os.getpid()}"}}'
    assert numbers[f"process_resident_memory_bytes{label}"] > 1_000_000
    assert numbers[f"process_threads{label}"] >= threading.active_count()
    for name in ("cpu_seconds_total", "open_fds", "start_time_seconds"):
        assert numbers[f"process_{name}{label}"] > 0


def test_a_process_that_has_ended_has_no_figures():
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert told(ProcessFigures(lambda: [ended.pid])) == {}


# A worker's life: it counts, and ends without a farewell.
WORKER = """
import os, sys
from predictor.engine.classifier import Classifier
from predictor.engine.metrics import Metrics
from predictor.settings import Settings
metrics = Metrics(Classifier(Settings()))
metrics.requests.labels("/", "GET", 200).inc(int(sys.argv[1]))
metrics.request_seconds.labels("/").observe(0.3)
metrics.refresh()
os._exit(0)
"""
COUNTED = 'predictor_requests_total{method="GET",route="/",status="200"}'
BUCKET = 'predictor_request_duration_seconds_bucket{le="0.5",route="/"}'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return tmp_path


def work(count):
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(count)], cwd=ROOT)
    assert worker.wait(timeout=60) == 0
    return worker.pid


def test_what_the_dead_have_counted_stays_and_their_gauges_go(folder):
    pids = [work(1), work(2), work(4)]
    for buried in range(len(pids) + 1):
        numbers = told(AllProcesses(str(folder)))
        assert (numbers[COUNTED], numbers[BUCKET]) == (7, 3)
        assert sum(name.startswith("predictor_ready") for name in numbers) == 3 - buried
        if buried < len(pids):
            forget_worker(pids[buried], alive=pids[buried + 1 :])
    assert {path.name for path in folder.iterdir()} == {"counter_0.db", "histogram_0.db", "lock"}


def test_while_a_scraper_reads_nothing_is_moved_and_nobody_waits(folder):
    first, second = work(1), work(2)
    with open(folder / "lock", "a") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        forget_worker(first, alive=[second])
        assert (folder / f"counter_{first}.db").exists()
    forget_worker(second, alive=[])
    assert told(AllProcesses(str(folder)))[COUNTED] == 3
    assert len(list(folder.glob("*.db"))) == 2


def test_a_process_that_is_just_being_born_is_no_error(folder):
    (folder / "counter_1.db").touch()
    assert told(AllProcesses(str(folder))) == {}


def test_a_full_disk_costs_no_counts(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    pid = work(1)
    monkeypatch.setattr(os, "posix_fallocate", full)
    forget_worker(pid, alive=[])
    assert told(AllProcesses(str(folder)))[COUNTED] == 1


def test_without_a_folder_there_is_nobody_to_bury(monkeypatch):
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    forget_worker(1, alive=[])


@pytest.fixture(scope="module")
def server():
    running = Server("--workers", "2", model="efficientnet_lite0").wait_until_ready()
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


ANSWERED = 'predictor_requests_total{method="POST",route="/predict",status="200"}'
REFUSED = 'predictor_rejected_total{reason="unsupported-image"}'
INFERRED = "predictor_batch_size_sum"


def test_the_counts_of_several_workers_add_up(server):
    before = scrape(server)
    with ThreadPoolExecutor(8) as pool:
        assert {r.status_code for r in pool.map(server.predict, [picture()] * 40)} == {200}
        assert {r.status_code for r in pool.map(server.predict, [b"text"] * 5)} == {415}
    for _ in range(10):  # whichever worker is asked
        numbers = scrape(server)
        assert numbers[ANSWERED] - before.get(ANSWERED, 0) == 40
        assert numbers[INFERRED] - before.get(INFERRED, 0) == 40
        assert numbers[REFUSED] - before[REFUSED] == 5
        assert len(workers(numbers)) == 2
        assert numbers.sum("process_resident_memory_bytes") > 200_000_000


def test_a_killed_worker_takes_its_gauges_along_and_leaves_its_counts(server):
    server.predict(picture())
    before = scrape(server)
    killed = server.worker
    os.kill(killed, signal.SIGKILL)

    def replaced():
        numbers = scrape(server)
        for name, value in before.items():
            if name.endswith("_total") and not name.startswith("process_"):
                assert numbers[name] >= value, name
        assert numbers[ANSWERED] == before[ANSWERED]
        alive = workers(numbers)
        return len(alive) == 2 and f'predictor_ready{{pid="{killed}"}}' not in alive

    wait_until(replaced)
    assert f'process_open_fds{{pid="{killed}"}}' not in scrape(server)


def test_a_reload_keeps_the_counts_and_piles_up_no_files(server):
    before, folder = scrape(server), metrics_folder(server)
    old = {path.name for path in folder.glob("gauge_*.db")}
    server.process.send_signal(signal.SIGHUP)
    # Nobody scrapes meanwhile: whoever does keeps the dead's files where they are.
    wait_until(lambda: not old & {path.name for path in folder.iterdir()})
    wait_until(lambda: len(list(folder.glob("gauge_liveall_*.db"))) == 2)
    wait_until(lambda: len(list(folder.glob("counter_*.db"))) == 3)  # two workers', all the dead's
    numbers = scrape(server)
    assert numbers[ANSWERED] == before[ANSWERED]
    assert len(workers(numbers)) == 2
    assert not workers(before) & workers(numbers)


@pytest.mark.server
def test_the_folder_is_private_and_goes_with_the_server():
    server = Server(model="efficientnet_lite0").wait_until_ready()
    folder = metrics_folder(server)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert server.stop() == 0
    assert not folder.exists()
    server.close()
