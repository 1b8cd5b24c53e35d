import fcntl
import gc
import os
import socket
import sys
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from gunicorn.config import Config

from predictor import settings
from predictor.server import hooks
from predictor.server.reload import READY, WORN
from predictor.server.worker import Worker
from predictor.settings import Settings, current_settings, hand_on


@pytest.fixture(autouse=True)
def _start_of_the_master(monkeypatch):
    """What a hook changes in its process does not outlive the test."""
    environ = {name: value for name, value in os.environ.items() if name != "GUNICORN_FD"}
    monkeypatch.setattr(os, "environ", environ)
    monkeypatch.setattr(hooks, "state", state := hooks.State())
    monkeypatch.setattr(settings, "_handed_on", Settings())
    yield
    for fd in state.shared_weights:
        os.close(fd)


def master(workers=1, **options):
    """What the hooks use of gunicorn's Arbiter."""
    options = {
        "preload_app": False,
        "http_protocols": ["h1"],
        "address": [],
        "bind": [],
        "uid": os.geteuid(),
        "gid": os.getegid(),
    } | options
    return SimpleNamespace(
        cfg=SimpleNamespace(**options),
        WORKERS={},
        num_workers=workers,
        worker_age=0,
        reload=lambda: None,
        manage_workers=lambda: None,
        log=SimpleNamespace(error=pytest.fail, warning=pytest.fail),
    )


def worker(slot=0):
    return SimpleNamespace(slot=slot, pid=1)


# The start


def test_preloading_is_refused():
    with pytest.raises(SystemExit, match="--preload"):
        hooks.on_starting(master(preload_app=True))


def test_a_taken_port_is_refused_with_advice():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
        with pytest.raises(SystemExit, match=f"Port {address[1]}.*PORT=5001"):
            hooks.on_starting(master(address=[address]))


def test_a_free_port_and_a_unix_socket_are_accepted():
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    hooks.on_starting(master(address=[address, "unix:/run/predictor.sock"]))


@pytest.mark.parametrize("name", ["GUNICORN_FD", "LISTEN_FDS"])
def test_a_listening_socket_that_is_passed_on_is_accepted(name):
    os.environ[name] = "3"
    with socket.create_server(("127.0.0.1", 0)) as passed_on:
        hooks.on_starting(master(address=[passed_on.getsockname()]))


# SIGHUP


def test_reload_reads_the_settings_again(tmp_path):
    (tmp_path / "tokens").write_text("the-first-of-two-tokens")
    os.environ["PREDICTOR_TOKENS_FILE"] = str(tmp_path / "tokens")
    hand_on(Settings.from_env())
    (tmp_path / "tokens").write_text("the-second-of-two-tokens")
    reloaded = []
    hooks.reload_if_valid(master(), lambda: reloaded.append(current_settings().all_tokens))
    assert reloaded == [("the-second-of-two-tokens",)]


def test_reload_with_invalid_settings_keeps_the_old_ones():
    before, errors = current_settings(), []
    os.environ["PREDICTOR_TOKENS_FILE"] = "/nowhere"
    server = master()
    server.log.error = lambda message, error: errors.append(message % error)
    hooks.reload_if_valid(server, lambda: pytest.fail("reloaded"))
    assert errors == [
        "Not reloaded. PREDICTOR_TOKENS_FILE='/nowhere': the file cannot be read (No such file or"
        " directory)."
    ]
    assert current_settings() is before


def test_starting_makes_sighup_check_the_settings(monkeypatch):
    calls, server = [], master()
    monkeypatch.setattr(hooks, "reload_if_valid", lambda *args: calls.append(args))
    gunicorns = server.reload
    hooks.on_starting(server)
    server.reload()
    assert calls == [(server, gunicorns)]


def test_what_workers_inherit_is_not_scanned_for_garbage():
    gc.unfreeze()
    hooks.on_starting(master())
    assert gc.get_freeze_count()
    gc.unfreeze()


# Workers


def test_a_new_worker_gets_the_slot_of_an_ended_or_replaced_one():
    server, pids = master(workers=3), iter(range(10, 20))

    def fork():
        new = Worker.__new__(Worker)  # without gunicorn's sockets
        hooks.pre_fork(server, new)
        pid = new.age = next(pids)
        server.WORKERS[pid] = new
        return new.slot

    assert [fork() for _ in range(3)] == [0, 1, 2]
    del server.WORKERS[11]
    assert fork() == 1
    server.WORKERS[10].age = 0  # it is worn
    assert fork() == 0
    server.worker_age = 14
    hooks.on_reload(server)  # while that replacement loads
    assert [fork() for _ in range(3)] == [0, 1, 2]
    for old in (10, 12, 13, 14):
        del server.WORKERS[old]
    del server.WORKERS[17]
    assert fork() == 2


@pytest.mark.parametrize("loads", [True, False])
def test_replaced_process_stays_only_if_it_can_answer(loads):
    """Otherwise several reloads in a row would fill the memory with models."""
    new, board, loading = Worker.__new__(Worker), hooks.state.board, Future()
    store = SimpleNamespace(loading=loading, process=SimpleNamespace(draining=False))
    new.wsgi = SimpleNamespace(extensions={"predictor": store})
    new.slot, new.alive, new._board, new._retires_by = 0, True, board, None
    board.claim(0)
    if not loads:
        loading.set_result(None)
        board.mark_ready(0)
    board.reserve(0)
    new.handle_exit(15, None)
    assert new.alive == (not loads)


def test_a_worn_worker_is_replaced_in_its_slot_before_it_ends():
    server, killed = master(workers=2), []
    workers = {pid: SimpleNamespace(slot=slot, age=pid) for slot, pid in enumerate((10, 11))}
    server.WORKERS = workers
    for slot, pid in enumerate(workers):
        hooks.state.board._write(slot, pid, READY)

    def spawn_worker():
        new = Worker.__new__(Worker)
        hooks.pre_fork(server, new)
        server.WORKERS = workers | {12: new}
        new.age = 12

    def manage_workers():  # as gunicorn does
        if len(server.WORKERS) > 2:
            killed.append(min(server.WORKERS, key=lambda pid: server.WORKERS[pid].age))

    server.spawn_worker, server.manage_workers = spawn_worker, manage_workers
    hooks.on_starting(server)
    server.manage_workers()
    assert killed == []
    hooks.state.board._write(1, 11, WORN)
    server.manage_workers()
    server.manage_workers()
    assert killed == [11, 11]
    assert server.WORKERS[12].slot == 1
    assert server.WORKERS[12].predecessor == 11


@pytest.fixture
def pinned(monkeypatch):
    """Pretend to have 8 processors; returns what the workers are pinned to."""
    sets = []
    monkeypatch.setattr(hooks, "available_cpus", lambda: 8)
    monkeypatch.setattr(hooks, "cpus_for_process", lambda index, count: (index, count))
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: sets.append((pid, cpus)))
    return sets


def test_each_worker_gets_a_gpu_of_its_own(pinned):
    hooks.state.gpus = ["2", "GPU-8f"]
    seen = []
    for slot in range(3):
        hooks.post_fork(master(), worker(slot))
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert seen == ["2", "GPU-8f", "2"]


@pytest.mark.parametrize("gpus", [[], ["0"]])
def test_workers_divide_the_processors_also_beside_a_gpu(pinned, gpus):
    hooks.state.gpus = gpus
    hooks.post_fork(master(workers=3), worker(slot=1))
    assert current_settings().torch_threads == 2
    assert pinned == [(0, (1, 3))]


def test_a_chosen_number_of_threads_is_kept(pinned):
    hand_on(Settings(torch_threads=3))
    hooks.post_fork(master(workers=3), worker())
    assert current_settings().torch_threads == 3


@pytest.mark.parametrize("gpus", [[], ["0"]])
def test_a_single_worker_is_not_pinned(pinned, gpus):
    hooks.state.gpus = gpus
    hooks.post_fork(master(), worker())
    assert pinned == []


@pytest.mark.parametrize(("workers", "gpus"), [(1, []), (2, ["0", "1"])])
def test_a_single_worker_and_workers_with_gpus_share_no_weights(workers, gpus):
    hooks.state.gpus = gpus
    hooks.on_starting(master(workers))
    assert hooks.state.shared_weights == ()


def test_several_workers_on_a_cpu_share_weights_also_after_a_reload(pinned):
    server = master(workers=2)
    hooks.on_starting(server)
    files = hooks.state.shared_weights
    hooks.on_reload(server)
    hooks.post_fork(server, worker())
    assert current_settings().shared_weights == hooks.state.shared_weights == files != ()


def test_the_master_frees_weights_that_no_process_uses_any_more():
    hooks.on_starting(master(workers=2))
    _, used, unused, *_ = hooks.state.shared_weights
    for fd in (used, unused):
        os.truncate(f"/proc/self/fd/{fd}", 1000)
    with open(f"/proc/self/fd/{used}") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        hooks.child_exit(master(), worker())
    assert [os.fstat(fd).st_size for fd in (used, unused)] == [1000, 0]


# The folder that the workers share


def test_each_start_has_a_new_private_folder_with_one_for_metrics():
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = "/of/another/run"
    folders = []
    for _ in range(2):
        hooks.when_ready(master())
        hooks.post_fork(master(), worker())
        folders.append(current_settings().shared_folder)
        assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == str(folders[-1] / "metrics")
        assert (folders[-1] / "metrics").is_dir()
        assert folders[-1].stat().st_mode & 0o777 == 0o700
    assert folders[0] != folders[1]
    for folder in folders:
        hooks.state.folder = folder
        hooks.on_exit(master())
        assert not folder.exists()


def test_without_a_writable_folder_a_warning_is_logged(monkeypatch):
    def read_only(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkdtemp", read_only)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = "/of/another/run"
    server, warnings = master(), []
    server.log.warning = warnings.append
    hooks.when_ready(server)
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
    assert len(warnings) == 1
    hooks.child_exit(server, worker())
    hooks.on_exit(server)


def test_a_server_that_never_became_ready_ends_without_an_error():
    hooks.on_exit(master())


@pytest.mark.parametrize(
    ("booted", "reason", "statuses"),
    [(True, 0, [0]), (True, -1, [0]), (False, 0, [0]), (False, 3, [3]), (False, "Say why.", [])],
)
def test_worker_ends_with_gunicorns_status_unless_python_prints_why(
    monkeypatch, booted, reason, statuses
):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    try:
        sys.exit(reason)
    except SystemExit:
        hooks.worker_exit(master(), SimpleNamespace(booted=booted))
    assert ended == statuses


@pytest.mark.parametrize(
    ("app", "torch", "order"),
    [
        ("wsgi:app", None, ["store", "app"]),
        ("wsgi:app", "installed", ["app"]),
        ("own:app", None, ["app"]),
    ],
)
def test_without_torch_models_begin_to_load_before_the_app_is_imported(
    monkeypatch, app, torch, order
):
    """Another app than this one may have a store of its own."""
    monkeypatch.setattr("predictor.server.worker.find_spec", lambda _: torch)
    seen, new = [], Worker(1, 0, [], None, 30, Config(), None)
    store = SimpleNamespace(start=lambda: seen.append("store"))
    monkeypatch.setattr("predictor.store.folder.process_store", lambda: store)
    new.app = SimpleNamespace(app_uri=app, wsgi=lambda: seen.append("app"))
    new.load_wsgi()
    new.tmp.close()
    assert seen == order
