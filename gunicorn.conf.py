"""gunicorn: a process owns a model, threads own requests.

The master reads this file and forks; it never imports torch, because neither CUDA nor
OpenMP's threads survive a fork.
"""

import errno
import glob
import math
import os
import shutil
import socket
import ssl
import sys
import tempfile
from functools import partial

from gunicorn.glogging import Logger

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # for gunicorn -c from elsewhere

from predictor import logs
from predictor.engine.cpus import available_cpus, share_of_cpus
from predictor.errors import SettingsError
from predictor.server.reload import Handover, lives
from predictor.settings import Settings


def visible_gpus() -> list[str]:
    """GPUs as CUDA_VISIBLE_DEVICES names them, without CUDA: it must not run before the fork."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [gpu.strip() for gpu in chosen.split(",") if gpu.strip() not in ("", "-1")]
    return [str(index) for index, _ in enumerate(glob.glob("/dev/nvidia[0-9]*"))]


def number(name: str, default: int, least: int, most: int) -> int:
    """A whole number from the environment."""
    text = os.environ.get(name, "").strip() or str(default)
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        sys.exit(
            f"The server cannot start. {name}={text!r} is not a number from {least} to {most}."
        )
    return int(text)


class OneFormat(Logger):
    """The application's log goes where gunicorn's own goes (--error-logfile), in one format.

    Not by logconfig_dict, with which gunicorn prepares an access line for every request.
    """

    def setup(self, cfg):
        """Also called for a reload."""
        super().setup(cfg)
        logs.configure(settings.log_format, self.error_log.handlers, self.loglevel)


try:
    settings = Settings.from_env()
except SettingsError as error:
    sys.exit(f"The server cannot start. {error}")

gpus = visible_gpus() if settings.device in ("auto", "cuda") else []
host, port = os.environ.get("HOST") or "127.0.0.1", number("PORT", 5000, 0, 65535)

bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
wsgi_app = "wsgi:app"
worker_class = "predictor.server.receiving.Worker"  # whole requests wait in threads
workers = number("WEB_CONCURRENCY", len(gpus) or 1, 1, 1000)  # a batch fills in one process only
# 8 answer probes, the page and refusals when all is full.
threads = settings.max_in_flight + settings.max_explanations + 8
timeout = 60  # for the worker's heartbeat, which goes on while a request is in work
graceful_timeout = math.ceil(settings.request_timeout_s) + 5  # whoever was admitted is answered
keepalive = 30  # an idle connection costs no thread, a new one costs a round trip
preload_app = False  # see above
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # disks block heartbeats
forwarder_headers = ""  # whose headers are believed, PREDICTOR_TRUSTED_PROXIES says and not this
secure_scheme_headers = {}
logger_class = OneFormat
control_socket_disable = True  # signals do; and a read-only file system has no place for it


class BriefHandshake(ssl.SSLSocket):
    """A TLS connection whose handshake ends in time: gunicorn gives a thread to it for ever."""

    def do_handshake(self, block=False):
        """Shake hands within the seconds that gunicorn itself waits for a first byte."""
        self.settimeout(5)
        try:
            super().do_handshake(block)
        except TimeoutError as error:  # as if the client had left, which is no line in the log
            raise ssl.SSLError(ssl.SSL_ERROR_EOF, "The handshake took too long.") from error
        finally:
            self.settimeout(None)


def ssl_context(config, default_ssl_context_factory):
    """TLS as gunicorn's options say, but for the handshake's limit."""
    context = default_ssl_context_factory()
    context.sslsocket_class = BriefHandshake
    return context


def on_starting(server):
    """Refuse, in a sentence, what would fail later and less clearly."""
    if server.cfg.preload_app:
        sys.exit("Leave out --preload: CUDA and OpenMP do not survive the fork that follows it.")
    server.handover = Handover()
    server.reload = partial(reload_if_it_would_start, server, server.reload)
    server.weights_fd = make_memory_for_weights(server)
    if os.environ.keys() & {"GUNICORN_FD", "LISTEN_FDS"}:
        return  # the listening socket is handed over by a predecessor or by systemd
    for address in server.cfg.address:
        if isinstance(address, tuple) and is_taken(address):
            sys.exit(f"Port {address[1]} on {address[0]} is taken. Choose another: PORT=5001.")


def reload_if_it_would_start(server, reload):
    """SIGHUP: gunicorn ends where this file, read again, refuses the settings or the tokens."""
    try:
        Settings.from_env()
    except SettingsError as error:
        server.log.error("Not reloaded. %s", error)
    else:
        reload()


def make_memory_for_weights(server):
    """An empty file in memory, where several processes on the CPU keep one set of weights."""
    if server.num_workers > 1 and not gpus and hasattr(os, "memfd_create"):
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        return os.memfd_create("weights", flags)
    return None


def on_reload(server):
    """New weights have a new place; the old one goes with the last process that maps it."""
    if server.weights_fd is not None:
        os.close(server.weights_fd)
    server.weights_fd = make_memory_for_weights(server)


def when_ready(server):
    """Give the workers a folder for what they count, in memory where that can be had.

    Always our own, and new: what another run has left there would be counted again.
    """
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    server.metrics_folder = None
    for parent in (worker_tmp_dir, None):
        try:
            folder = tempfile.mkdtemp(prefix="predictor-metrics-", dir=parent)
            os.chown(folder, server.cfg.uid, server.cfg.gid)  # of the workers, by --user
        except OSError:
            continue
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = server.metrics_folder = folder
        return
    server.log.warning("No folder can be written to: each worker has metrics of its own.")


def is_taken(address: tuple[str, int]) -> bool:
    """Whether somebody listens there, asked as gunicorn will ask."""
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            return error.errno == errno.EADDRINUSE
        return False


def pre_fork(server, worker):
    """Give the worker the seat that fewest have: of one that died, or goes after a reload."""
    held = [other.seat for other in server.WORKERS.values()]
    worker.seat = min(range(server.num_workers), key=held.count)
    worker.handover = server.handover
    worker.predecessor = server.handover.expect(worker.seat)


def post_fork(server, worker):
    """Tell the worker its share of the machine: a GPU, or some of the processors."""
    server.handover.arrive(worker.seat)
    # This file has made the master import our code; the worker's own import makes HUP a reload.
    for name in [name for name in sys.modules if name.split(".")[0] == "predictor"]:
        del sys.modules[name]
    if settings.torch_threads is None:
        share = max(1, available_cpus() // server.num_workers)
        os.environ["PREDICTOR_TORCH_THREADS"] = str(share)
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[worker.seat % len(gpus)]
    elif server.num_workers > 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share_of_cpus(worker.seat, server.num_workers))
    if server.weights_fd is not None:
        os.environ["PREDICTOR_SHARED_WEIGHTS_FD"] = str(server.weights_fd)


def post_worker_init(worker):
    """Load while listening; a model that cannot be loaded stops the server, not just the worker."""
    from app import CANNOT_SERVE, announce

    worker.wsgi.extensions["metrics"].keep_fresh()
    classifier = worker.wsgi.extensions["classifier"]
    # After a reload the predecessor serves on, and gunicorn must not stop because of us.
    status = 1 if lives(worker.predecessor) else CANNOT_SERVE
    announce(classifier, str(worker.sockets[0]), status)
    classifier.loading.add_done_callback(lambda _: worker.handover.be_ready(worker.seat))
    classifier.start()


def worker_exit(server, worker):
    """Leave without the interpreter's teardown, which aborts under torch's running threads."""
    if worker.booted:
        sys.stderr.flush()
        os._exit(0)


def child_exit(server, worker):
    """Keep a dead worker's counts, drop its gauges. In the master, and not before it has forked."""
    from predictor.engine.metrics import bury

    bury(worker.pid, alive=server.WORKERS.keys())


def on_exit(server):
    """Take the folder of the metrics along."""
    if folder := getattr(server, "metrics_folder", None):
        shutil.rmtree(folder, ignore_errors=True)
