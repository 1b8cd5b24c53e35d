"""gunicorn's hooks, in the order of a process's life. ``gunicorn.conf.py`` imports them.

A worker runs :func:`post_fork`, :func:`post_worker_init` and :func:`worker_exit`. The master runs
the other hooks. It never imports torch, because CUDA and OpenMP's threads do not survive a fork.
"""

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from predictor.engine.cpus import available_cpus, cpus_for_process
from predictor.engine.memory import keep_for_next_pass
from predictor.errors import SettingsError
from predictor.server.address import check
from predictor.server.reload import ReloadBoard, is_running
from predictor.server.start import bind_address, shared_memory, visible_gpus
from predictor.settings import Settings, current_settings, hand_on

Server = Any  # gunicorn's Arbiter, which has no types
Worker = Any


@dataclass
class State:
    """What the master remembers between hooks, and across reloads."""

    gpus: list[str] = field(default_factory=list)
    board: ReloadBoard = field(default_factory=ReloadBoard)
    reloaded_at: int = 0  # the age of the last worker that was forked before the last reload
    weights_fd: int | None = None  # a memory file in which the workers share one set of weights
    metrics_folder: str | None = None


state = State()


def configure() -> Settings:
    """Return the settings for ``gunicorn.conf.py``. Exit with a message if a setting is invalid.

    gunicorn reads ``gunicorn.conf.py`` at the start and at each reload.
    """
    try:
        settings = current_settings()
    except SettingsError as error:
        sys.exit(f"The server cannot start. {error}")
    hand_on(settings)
    state.gpus = visible_gpus() if settings.device in ("auto", "cuda") else []
    return settings


def on_starting(server: Server) -> None:
    """Exit with a message if the server cannot work. gunicorn's own error would come later."""
    if server.cfg.preload_app:
        sys.exit("Remove --preload: CUDA and OpenMP do not survive the fork that follows it.")
    if "h2" in server.cfg.http_protocols:
        sys.exit("Remove h2 from --http-protocols: this server speaks HTTP/1.1 only.")
    server.reload = partial(reload_if_valid, server, server.reload)
    server.manage_workers = partial(replace_worn, server, server.manage_workers)
    state.weights_fd = create_weights_file(server)
    if os.environ.keys() & {"GUNICORN_FD", "LISTEN_FDS"}:
        return  # systemd or an old gunicorn passes the listening socket
    for address in server.cfg.address:
        if isinstance(address, tuple):
            check(address[0], address[1], "--bind")
    port_alone = os.environ.get("PORT") and not os.environ.get("HOST")
    if port_alone and server.cfg.bind == [bind_address()]:
        server.log.info(
            "Listening on 127.0.0.1 only, because PORT is set and HOST is not. To be reached from"
            " other machines, set HOST=0.0.0.0."
        )


def reload_if_valid(server: Server, reload: Any) -> None:
    """On SIGHUP, read the settings and the tokens file again, and reload if they are valid.

    If they are invalid, log an error: an error raised in ``gunicorn.conf.py`` would end gunicorn.
    The master keeps the modules that it has imported, so new code needs a restart.
    """
    try:
        settings = Settings.from_env()
    except SettingsError as error:
        server.log.error("Not reloaded. %s", error)
        return
    hand_on(settings)
    reload()


def replace_worn(server: Server, manage_workers: Any) -> None:
    """Fork a replacement for a worker that has served ``--max-requests``, one at a time.

    The master calls this about once a second. gunicorn then has one worker too many and ends the
    one that it takes for the oldest, with SIGTERM. That worker serves until its replacement can.
    """
    worn = [worker for worker in server.WORKERS.values() if state.board.is_worn(worker.slot)]
    if worn and len(server.WORKERS) == server.num_workers:
        worn[0].age = 0  # the oldest for gunicorn, and for pre_fork one that holds no slot
        server.spawn_worker()
    manage_workers()


def create_weights_file(server: Server) -> int | None:
    """Return an empty memory file's descriptor if several processes serve on the CPU, else None."""
    if server.num_workers > 1 and not state.gpus and hasattr(os, "memfd_create"):
        return os.memfd_create("weights", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    return None


def on_reload(server: Server) -> None:
    """Create a file for the new weights. The old file exists until its last process ends."""
    state.reloaded_at = server.worker_age
    if state.weights_fd is not None:
        os.close(state.weights_fd)
    state.weights_fd = create_weights_file(server)


def when_ready(server: Server) -> None:
    """Create a folder for the workers' metrics, in memory if possible.

    The folder is new at each start. Otherwise the counts of an earlier run would be added.
    """
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    for parent in (shared_memory(), None):
        try:
            folder = tempfile.mkdtemp(prefix="predictor-metrics-", dir=parent)
            os.chown(folder, server.cfg.uid, server.cfg.gid)  # gunicorn's --user owns the workers
        except OSError:
            continue
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = state.metrics_folder = folder
        return
    server.log.warning("No folder is writable, so /metrics reports only one worker.")


def pre_fork(server: Server, worker: Worker) -> None:
    """Give the worker a slot that is free, or held by a worker that is to be replaced."""
    held = [other.slot for other in server.WORKERS.values() if other.age > state.reloaded_at]
    worker.assign(min(range(server.num_workers), key=held.count), state.board)


def post_fork(server: Server, worker: Worker) -> None:
    """Give the worker its part of the machine: a GPU, or some of the processors."""
    state.board.claim(worker.slot)
    settings = current_settings()
    threads = settings.torch_threads or max(1, available_cpus() // server.num_workers)
    hand_on(replace(settings, torch_threads=threads, shared_weights_fd=state.weights_fd))
    if state.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = state.gpus[worker.slot % len(state.gpus)]
    elif server.num_workers > 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus_for_process(worker.slot, server.num_workers))


def post_worker_init(worker: Worker) -> None:
    """Load the model while the worker listens. If loading fails, stop the server."""
    from predictor.server.console import EXIT_APP_LOAD_ERROR, announce  # not in the master

    store = worker.store
    store.metrics.keep_fresh()
    # After a reload the old worker still serves. Then a failure must not stop the server.
    serves = is_running(worker.predecessor) or state.board.is_any_ready()
    status = 1 if serves else EXIT_APP_LOAD_ERROR
    announce(store, str(worker.sockets[0]), status)
    store.loading.add_done_callback(lambda _: state.board.mark_ready(worker.slot))
    store.loading.add_done_callback(lambda _: keep_for_next_pass())
    store.start()


def worker_exit(_server: Server, worker: Worker) -> None:
    """Skip the interpreter's teardown, because it aborts if torch's threads still run."""
    if worker.booted:
        sys.stderr.flush()
        os._exit(0)


def child_exit(server: Server, worker: Worker) -> None:
    """Keep an ended worker's counts, and delete its gauges."""
    from predictor.engine.metric_files import forget_worker  # it must see PROMETHEUS_MULTIPROC_DIR

    forget_worker(worker.pid, alive=server.WORKERS.keys())


def on_exit(_server: Server) -> None:
    """Delete the folder for the workers' metrics."""
    if state.metrics_folder:
        shutil.rmtree(state.metrics_folder, ignore_errors=True)
