"""gunicorn's hooks, in the order of a process's life. ``gunicorn.conf.py`` imports them.

A worker runs :func:`post_fork`, :func:`post_worker_init` and :func:`worker_exit`. The master runs
the other hooks. It never imports torch, because CUDA and OpenMP's threads do not survive a fork.
"""

import gc
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from gunicorn import sock  # type: ignore[import-untyped]

from predictor.engine.cpus import available_cpus, cpus_for_process
from predictor.engine.memory import keep_for_next_pass
from predictor.errors import SettingsError
from predictor.models import shared_weights
from predictor.processes import is_running
from predictor.server.address import MANAGEMENT_BIND, check
from predictor.server.reload import ReloadBoard
from predictor.server.start import bind_addresses, shared_memory, visible_gpus
from predictor.settings import Settings, current_settings, hand_on
from predictor.store.watch import Watch

Server = Any  # gunicorn's Arbiter, which has no types
Worker = Any


@dataclass
class State:
    """What the master remembers between hooks, and across reloads."""

    gpus: list[str] = field(default_factory=list)
    board: ReloadBoard = field(default_factory=ReloadBoard)
    reload_again: bool = False  # it was asked for while old workers were left from the last one
    reloaded_at: int = 0  # the age of the last worker that was forked before the last reload
    watch: Watch = field(default_factory=Watch)  # polled by the master
    shared_weights: tuple[int, ...] = ()  # memory files, in which the workers share weights
    folder: Path | None = None  # what else the workers share; it belongs to gunicorn's --user


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
    state.watch = Watch()
    for file in settings.tokens_files:
        state.watch.add(file.paths, file.follow)
    state.gpus = visible_gpus() if settings.device in ("auto", "cuda") else []
    return settings


def on_starting(server: Server) -> None:
    """Exit with a message if the server cannot work. gunicorn's own error would come later."""
    if server.cfg.preload_app:
        sys.exit("Remove --preload: CUDA and OpenMP do not survive the fork that follows it.")
    if "h2" in server.cfg.http_protocols:
        sys.exit("Remove h2 from --http-protocols: this server speaks HTTP/1.1 only.")
    try:
        check_tls(server.cfg)
    except SettingsError as error:
        sys.exit(f"The server cannot start. {error}")
    server.reload = partial(reload_if_valid, server, server.reload)
    server.manage_workers = partial(replace_worn, server, server.manage_workers)
    create_weights_files(server)
    gc.freeze()  # or each worker's garbage collector would scan, and so copy, what it inherits
    if os.environ.keys() & {"GUNICORN_FD", "LISTEN_FDS"}:
        return  # systemd or an old gunicorn passes the listening socket
    settings, bind = current_settings(), server.cfg.bind
    own = bind_addresses(settings)
    if bind == own and len({*own}) < len(own):
        sys.exit(f"{MANAGEMENT_BIND} is {own[1]}, as are HOST and PORT. Change one of the two.")
    if own[1:] and bind.count(own[1]) != 1:
        sys.exit(f"The management API has its own address: with --bind, also add --bind {own[1]}.")
    for address in server.cfg.address:
        if isinstance(address, tuple):
            is_own = address == settings.management_bind
            check(address[0], address[1], MANAGEMENT_BIND if is_own else "--bind")
    port_alone = os.environ.get("PORT") and not os.environ.get("HOST")
    if port_alone and bind == own[:1]:
        server.log.info(
            "Listening on 127.0.0.1 only, because PORT is set and HOST is not. To be reached from"
            " other machines, set HOST=0.0.0.0."
        )


def check_tls(cfg: Any) -> None:
    """Raise SettingsError if the files for TLS cannot be used. Each worker would end with that."""
    try:
        if cfg.is_ssl:
            sock.ssl_context(cfg)
    except (OSError, TypeError, ValueError) as error:  # TypeError: there is a key only
        raise SettingsError(
            f"TLS cannot be used: {error}. --certfile and --keyfile must name the files of a"
            " certificate and its key, in PEM."
        ) from error


def reload_if_valid(server: Server, reload: Any) -> None:
    """On SIGHUP, read the settings, tokens and TLS files again, and reload if they are valid.

    If they are invalid, log an error: an error raised in ``gunicorn.conf.py`` would end gunicorn.
    The master keeps the modules that it has imported, so new code needs a restart.

    While workers of the last reload are being replaced, it is put off: each would load a model.
    """
    state.reload_again = len(server.WORKERS) > server.num_workers
    if state.reload_again:
        server.log.info("The reload begins when the last one has ended.")
        return
    try:
        check_tls(server.cfg)
        settings = Settings.from_env()
    except SettingsError as error:
        server.log.error("Not reloaded. %s", error)
        return
    hand_on(settings)
    server.reap_workers = _stop_waiting
    try:
        reload()
    except _Started:
        pass
    finally:
        del server.reap_workers


class _Started(Exception):
    """The new workers have been forked."""


def _stop_waiting() -> NoReturn:
    """End gunicorn's reload where it would wait for the old workers, and handle no signals."""
    raise _Started


def replace_worn(server: Server, manage_workers: Any) -> None:
    """Fork a replacement for a worker that has served ``--max-requests``, one at a time.

    A reload that was put off comes first. The master calls this about once a second. It follows
    the tokens, too: a worker that it forks must not accept a token that the others have dropped,
    even if the file has become unreadable.

    After the fork gunicorn has one worker too many and ends the one that it takes for the oldest,
    with SIGTERM. That worker serves until its replacement can.
    """
    state.watch.poll()
    if state.reload_again and len(server.WORKERS) <= server.num_workers:
        server.reload()
    worn = [worker for worker in server.WORKERS.values() if state.board.is_worn(worker.slot)]
    if worn and len(server.WORKERS) == server.num_workers:
        worn[0].age = 0  # the oldest for gunicorn, and for pre_fork one that holds no slot
        server.spawn_worker()
    manage_workers()


def create_weights_files(server: Server) -> None:
    """Create empty memory files for weights if several processes serve on the CPU."""
    several = server.num_workers > 1 and not state.gpus
    if several and not state.shared_weights and hasattr(os, "memfd_create"):
        state.shared_weights = shared_weights.create_files()


def on_reload(server: Server) -> None:
    """Keep the memory files: the new workers map the weights that the old workers have mapped."""
    state.reloaded_at = server.worker_age
    create_weights_files(server)


def when_ready(server: Server) -> None:
    """Create a folder that only the workers can read, in memory if possible, and one for metrics.

    The folder is new at each start. Otherwise the counts of an earlier run would be added.
    """
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    for parent in (shared_memory(), None):
        try:
            folder = Path(tempfile.mkdtemp(prefix="predictor-", dir=parent))
            metrics = folder / "metrics"
            for path in (folder, metrics, folder / "followers"):
                path.mkdir(0o700, exist_ok=True)
                os.chown(path, server.cfg.uid, server.cfg.gid)  # gunicorn's --user owns the workers
        except OSError:
            continue
        os.environ["PROMETHEUS_MULTIPROC_DIR"], state.folder = str(metrics), folder
        return
    server.log.warning("No folder is writable, so /metrics reports only one worker.")


def pre_fork(server: Server, worker: Worker) -> None:
    """Give the worker a slot that is free, or held by a worker that is to be replaced.

    The latter may be any one: after SIGTTIN and SIGTTOU, the only worker has the second slot.
    """
    others = server.WORKERS.values()
    replaced = [other.slot for other in others if other.age <= state.reloaded_at]
    held = [other.slot for other in others if other.age > state.reloaded_at]
    worker.assign(min([*replaced, *range(server.num_workers)], key=held.count), state.board)


def post_fork(server: Server, worker: Worker) -> None:
    """Give the worker its part of the machine: some of the processors, and a GPU if there is one.

    Beside a GPU, too, the threads of a process are faster on their own processors: 8 processes of
    VGG16 answered 1,700 photos per second instead of 1,400 (H200, 16 processors, November 2026).
    """
    state.board.claim(worker.slot)
    settings = current_settings()
    threads = settings.torch_threads or max(1, available_cpus() // server.num_workers)
    shared, folder = state.shared_weights, state.folder
    hand_on(replace(settings, torch_threads=threads, shared_weights=shared, shared_folder=folder))
    if state.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = state.gpus[worker.slot % len(state.gpus)]
    if server.num_workers > 1 and hasattr(os, "sched_setaffinity"):
        index = worker.slot % server.num_workers
        os.sched_setaffinity(0, cpus_for_process(index, server.num_workers))


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
    """Skip the interpreter's teardown, because it aborts if threads load or run a model."""
    ended = sys.exc_info()[1]  # a SystemExit, by which gunicorn tells the master the reason
    status = 0 if worker.booted else getattr(ended, "code", None)
    if isinstance(status, int):
        sys.stderr.flush()
        os._exit(status)


def child_exit(server: Server, worker: Worker) -> None:
    """Keep an ended worker's counts, delete its gauges, and free the weights that only it used.

    If it was to replace one that is still there, that one keeps the slot, and becomes as young:
    gunicorn ends the oldest of too many.
    """
    from predictor.engine.metric_files import forget_worker  # it must see PROMETHEUS_MULTIPROC_DIR

    for other in server.WORKERS.values():
        if other.slot == worker.slot:
            other.age = max(other.age, worker.age)

    forget_worker(worker.pid, alive=server.WORKERS.keys())
    for fd in state.shared_weights[1:]:
        shared_weights.empty_if_unused(fd)


def on_exit(_server: Server) -> None:
    """Delete the folder that the workers share."""
    if state.folder:
        shutil.rmtree(state.folder, ignore_errors=True)
