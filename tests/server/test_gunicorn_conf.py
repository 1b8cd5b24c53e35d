import os
import runpy
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from paths import ROOT
from predictor.server.reload import Handover

CONF = ROOT / "gunicorn.conf.py"


@pytest.fixture
def conf(monkeypatch):
    """Read the file as gunicorn does, in an environment; returns its names."""

    # What a hook changes in its process must not outlive the test.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(sys, "modules", sys.modules.copy())

    def read(gpus=(), **environ):
        for name in ("HOST", "PORT", "WEB_CONCURRENCY", "CUDA_VISIBLE_DEVICES", "GUNICORN_FD"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("glob.glob", lambda _: list(gpus))
        return SimpleNamespace(**runpy.run_path(str(CONF)))

    return read


def server(**settings):
    cfg = SimpleNamespace(**{"preload_app": False, "address": []} | settings)
    return SimpleNamespace(
        cfg=cfg,
        WORKERS={},
        num_workers=1,
        weights_fd=None,
        handover=Handover(),
        reload=lambda: None,
    )


def test_on_a_cpu_one_process_owns_the_model(conf):
    assert conf().workers == 1


@pytest.mark.parametrize(
    ("environ", "workers"),
    [
        ({}, 4),
        ({"CUDA_VISIBLE_DEVICES": "0,2"}, 2),
        ({"CUDA_VISIBLE_DEVICES": ""}, 1),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 1),
        ({"PREDICTOR_DEVICE": "cpu"}, 1),
        ({"WEB_CONCURRENCY": "8"}, 8),
    ],
)
def test_on_cuda_there_is_a_process_for_each_gpu(conf, environ, workers):
    assert conf(gpus=[f"/dev/nvidia{i}" for i in range(4)], **environ).workers == workers


def test_probes_find_a_thread_when_all_places_are_taken(conf):
    assert conf(PREDICTOR_MAX_IN_FLIGHT="10", PREDICTOR_MAX_EXPLANATIONS="7").threads > 17


def test_whoever_was_admitted_is_answered_before_the_end(conf):
    assert conf(PREDICTOR_REQUEST_TIMEOUT_S="90.5").graceful_timeout > 90.5


def test_the_model_is_not_loaded_before_the_fork(conf):
    assert conf().preload_app is False


@pytest.mark.parametrize(
    ("environ", "bind"),
    [
        ({}, "127.0.0.1:5000"),
        ({"HOST": "0.0.0.0", "PORT": "80"}, "0.0.0.0:80"),
        ({"HOST": "::1"}, "[::1]:5000"),
    ],
)
def test_host_and_port_are_honoured(conf, environ, bind):
    assert conf(**environ).bind == bind


def test_a_bad_setting_stops_the_start_in_a_sentence(conf):
    with pytest.raises(SystemExit, match="PREDICTOR_MAX_QUEUE='many'"):
        conf(PREDICTOR_MAX_QUEUE="many")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("PORT", "-1"),
        ("PORT", "http"),
        ("WEB_CONCURRENCY", "0"),
        ("WEB_CONCURRENCY", "two"),
    ],
)
def test_a_number_that_is_none_stops_the_start_in_a_sentence(conf, name, value):
    with pytest.raises(SystemExit, match=f"{name}='{value}' is not a number"):
        conf(**{name: value})


def test_threads_that_were_chosen_are_not_shared_out(conf):
    conf(PREDICTOR_TORCH_THREADS="3").post_fork(server(), SimpleNamespace(seat=0))
    assert os.environ["PREDICTOR_TORCH_THREADS"] == "3"


def test_preloading_is_refused(conf):
    with pytest.raises(SystemExit, match="--preload"):
        conf().on_starting(server(preload_app=True))


def test_a_taken_port_is_refused_with_advice(conf):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
        with pytest.raises(SystemExit, match=f"Port {address[1]}.*PORT=5001"):
            conf().on_starting(server(address=[address]))
    conf().on_starting(server(address=[address, "unix:/run/predictor.sock"]))


def test_a_socket_that_is_handed_over_is_not_taken_for_a_strangers(conf):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        conf(GUNICORN_FD="3").on_starting(server(address=[taken.getsockname()]))


def test_a_worker_takes_the_seat_of_the_one_that_died_or_will_go(conf):
    arbiter, pre_fork = server(), conf().pre_fork
    arbiter.num_workers = 3
    pids = iter(range(10, 20))

    def fork():
        worker = SimpleNamespace()
        pre_fork(arbiter, worker)
        arbiter.WORKERS[next(pids)] = worker
        return worker.seat

    assert [fork() for _ in range(3)] == [0, 1, 2]
    del arbiter.WORKERS[11]
    assert fork() == 1
    assert [fork() for _ in range(3)] == [0, 1, 2]  # a reload
    for old in (10, 12, 13):
        del arbiter.WORKERS[old]
    del arbiter.WORKERS[16]
    assert fork() == 2


def test_each_worker_has_a_gpu_of_its_own(conf):
    names = conf(CUDA_VISIBLE_DEVICES="2,GPU-8f")
    seen = []
    for seat in range(3):
        names.post_fork(server(), SimpleNamespace(seat=seat))
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert seen == ["2", "GPU-8f", "2"]


@pytest.fixture
def pinned(monkeypatch):
    """A machine of 8 processors; where its processes pin themselves."""
    places = []
    monkeypatch.setattr("predictor.engine.cpus.available_cpus", lambda: 8)
    monkeypatch.setattr(
        "predictor.engine.cpus.cpus_for_process", lambda place, places: (place, places)
    )
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: places.append((pid, cpus)))
    return places


def test_workers_on_a_cpu_share_the_processors(conf, pinned):
    arbiter = server()
    arbiter.num_workers = 3
    conf().post_fork(arbiter, SimpleNamespace(seat=1))
    assert os.environ["PREDICTOR_TORCH_THREADS"] == "2"
    assert pinned == [(0, (1, 3))]


@pytest.mark.parametrize(("workers", "environ"), [(1, {}), (2, {"CUDA_VISIBLE_DEVICES": "0,1"})])
def test_one_worker_and_those_of_gpus_are_not_pinned(conf, pinned, workers, environ):
    arbiter = server()
    arbiter.num_workers = workers
    conf(**environ).post_fork(arbiter, SimpleNamespace(seat=0))
    assert pinned == []


def test_several_workers_on_a_cpu_are_given_one_memory_for_the_weights(conf, monkeypatch, pinned):
    names, arbiter = conf(), server()
    names.on_starting(arbiter)
    assert arbiter.weights_fd is None
    arbiter.num_workers = 2
    names.on_starting(arbiter)
    first = os.fstat(arbiter.weights_fd)
    names.post_fork(arbiter, SimpleNamespace(seat=0))
    assert os.environ["PREDICTOR_SHARED_WEIGHTS_FD"] == str(arbiter.weights_fd)
    names.on_reload(arbiter)  # HUP: the weights may be others now
    assert os.fstat(arbiter.weights_fd).st_ino != first.st_ino
    os.close(arbiter.weights_fd)


def test_workers_of_gpus_have_no_memory_for_weights(conf):
    names, arbiter = conf(CUDA_VISIBLE_DEVICES="0,1"), server()
    arbiter.num_workers = 2
    names.on_starting(arbiter)
    assert arbiter.weights_fd is None


def test_the_heartbeat_is_in_memory_where_there_is_a_place_for_it(conf, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, _mode: path == "/dev/shm")
    assert conf().worker_tmp_dir == "/dev/shm"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert conf().worker_tmp_dir is None


def test_every_start_has_a_folder_of_its_own_for_metrics_and_takes_it_along(conf):
    names, arbiters = conf(PROMETHEUS_MULTIPROC_DIR="/of/another/run"), []
    for _ in range(2):
        arbiters.append(server(uid=os.geteuid(), gid=os.getegid()))
        names.when_ready(arbiters[-1])
        assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == arbiters[-1].metrics_folder
    folders = [Path(arbiter.metrics_folder) for arbiter in arbiters]
    assert folders[0] != folders[1]
    assert all(folder.is_dir() for folder in folders)
    conf().on_exit(arbiters[0])  # read again, as for a reload
    assert [folder.exists() for folder in folders] == [False, True]
    names.on_exit(arbiters[1])


def test_where_nothing_can_be_written_each_worker_counts_for_itself_and_says_so(conf, monkeypatch):
    def read_only(**_):
        raise OSError(30, "Read-only file system")

    names = conf(PROMETHEUS_MULTIPROC_DIR="/of/another/run")
    arbiter, warnings = server(), []
    arbiter.log = SimpleNamespace(warning=warnings.append)
    monkeypatch.setattr("tempfile.mkdtemp", read_only)
    names.when_ready(arbiter)
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
    assert len(warnings) == 1
    names.child_exit(arbiter, SimpleNamespace(pid=1))
    names.on_exit(arbiter)


def test_a_server_that_never_became_ready_leaves_nothing(conf):
    conf().on_exit(server())
