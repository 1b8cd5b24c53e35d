import os
import sys
from concurrent.futures import Future
from functools import partial
from time import monotonic
from types import SimpleNamespace

import pytest
from gunicorn.config import Config

from fake_master import master, worker
from predictor.server import hooks
from predictor.server.reload import READY, WORN
from predictor.server.worker import Worker
from predictor.settings import Settings, current_settings, hand_on

pytestmark = pytest.mark.usefixtures("start_of_the_master")


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
    assert sorted(fork() for _ in range(3)) == [0, 1, 2]
    for old in (10, 12, 13, 14):
        del server.WORKERS[old]
    ended = next(pid for pid, worker in server.WORKERS.items() if worker.slot == 2)
    del server.WORKERS[ended]
    assert fork() == 2
    # SIGTTOU ends the oldest.
    server.WORKERS = {pid: one for pid, one in server.WORKERS.items() if one.slot == 2}
    server.num_workers, server.worker_age = 1, 18
    hooks.on_reload(server)
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


def test_a_replaced_process_waits_longer_for_what_arrives():
    """When the server stops, somebody waits for that. It is ready, and so says the process."""
    old = Worker.__new__(Worker)
    process = SimpleNamespace(draining=False)
    old.wsgi = SimpleNamespace(extensions={"predictor": SimpleNamespace(process=process)})
    old.cfg, old.slot, old._board = SimpleNamespace(graceful_timeout=35), 0, hooks.state.board
    old._look_for_replacement(until=monotonic())
    assert (old.alive, old.drain_s, process.draining) == (False, 30, False)


def test_a_worker_whose_replacement_ended_is_not_the_one_that_gunicorn_ends(monkeypatch):
    monkeypatch.setattr("predictor.engine.metric_files.forget_worker", lambda *_, **__: None)
    server, old, other = master(workers=2), worker(slot=0), worker(slot=1)
    old.age, other.age, replacement = 1, 2, worker(slot=0)
    replacement.age, server.WORKERS = 3, {10: old, 11: other}
    hooks.child_exit(server, replacement)
    assert (old.age, other.age) == (3, 2)


def test_a_reload_waits_for_the_last_one():
    """Several at once would fill the memory with models that load."""
    server, reloads = master(workers=1), []
    server.reload = partial(hooks.reload_if_valid, server, lambda: reloads.append(1))
    server.WORKERS = {10: worker(), 11: worker()}
    server.reload()
    server.reload()
    hooks.replace_worn(server, lambda: None)
    assert reloads == []
    del server.WORKERS[10]
    for _ in range(2):
        hooks.replace_worn(server, lambda: None)
    assert reloads == [1]


def test_the_master_handles_signals_while_old_workers_end():
    """gunicorn would wait for them in its reload."""
    server, ended = master(), []
    server.reap_workers = lambda: ended.append("reaped")

    def reload():
        server.reap_workers()
        pytest.fail("it waits")

    hooks.reload_if_valid(server, reload)


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
