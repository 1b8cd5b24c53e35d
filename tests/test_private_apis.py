"""The undocumented parts of gunicorn and prometheus_client that this package relies on.

Any release may change them, so requirements.txt limits the versions of both. If a test fails
here after an upgrade, adapt the file that its message names, then raise the limit.
"""

import inspect
import logging
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import SocketUnreader
from gunicorn.http.wsgi import default_environ
from gunicorn.workers.gthread import TConn, ThreadWorker
from prometheus_client import mmap_dict, multiprocess

from paths import ROOT
from predictor.server.console import EXIT_APP_LOAD_ERROR

RECEIVER = "predictor/server/receiver.py"
WORKER = "predictor/server/worker.py"
RECEPTION = "predictor/server/reception.py"
HOOKS = "predictor/server/hooks.py"
START = "predictor/server/start.py"
METRICS = "predictor/engine/metric_files.py"
REQUEST = "predictor/web/request.py"

# Who relies on it, its owner, its name, and its arguments.
METHODS = [
    (RECEIVER, ThreadWorker, "enqueue_req", ["self", "conn"]),
    (RECEIVER, ThreadWorker, "finish_request", ["self", "conn", "fs"]),
    (RECEIVER, ThreadWorker, "handle_request", ["self", "req", "conn"]),
    (RECEIVER, ThreadWorker, "_keepalive_after", ["self", "conn", "keepalive"]),
    (RECEIVER, ThreadWorker, "murder_pending", ["self"]),
    (RECEIVER, ThreadWorker, "murder_keepalived", ["self", "force"]),
    (WORKER, ThreadWorker, "set_accept_enabled", ["self", "enabled"]),
    (WORKER, ThreadWorker, "handle_exit", ["self", "sig", "frame"]),
    (WORKER, ThreadWorker, "notify", ["self"]),
    (WORKER, ThreadWorker, "init_process", ["self"]),
    (RECEIVER, TConn, "init", ["self"]),
    (RECEIVER, TConn, "close", ["self", "graceful"]),
    (RECEIVER, RequestParser, "finish_body", ["self", "deadline", "max_bytes"]),
    (RECEIVER, Request, "force_close", ["self"]),
    (RECEIVER, SocketUnreader, "unread", ["self", "data"]),
    (RECEPTION, SocketUnreader, "chunk", ["self", "size_hint"]),
    (RECEPTION, SocketUnreader, "take_buffered", ["self"]),
    (HOOKS, Arbiter, "reload", ["self"]),
    (START, Logger, "setup", ["self", "cfg"]),
    (METRICS, mmap_dict.MmapedDict, "__init__", ["self", "filename", "read_mode"]),
    (METRICS, mmap_dict.MmapedDict, "write_value", ["self", "key", "value", "timestamp"]),
    (METRICS, mmap_dict.MmapedDict, "close", ["self"]),
    (
        METRICS, mmap_dict, "mmap_key",
        ["metric_name", "name", "labelnames", "labelvalues", "help_text"],
    ),
    (METRICS, multiprocess.MultiProcessCollector, "merge", ["files", "accumulate"]),
    (METRICS, multiprocess, "mark_process_dead", ["pid", "path"]),
]  # fmt: skip


@pytest.fixture
def objects():
    """One object of each class of gunicorn whose attributes are used."""
    cfg = Config()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker = ThreadWorker(1, 0, [], None, 30, cfg, logging.getLogger())
        conn = TConn(cfg, ours, None, None)
        conn.init()
        unreader = conn.parser.unreader
        yield {"Worker": worker, "TConn": conn, "Unreader": unreader, "Logger": Logger(cfg)}
        worker.tmp.close()


ATTRIBUTES = [
    (RECEIVER, "Worker", "cfg log alive nr_conns worker_connections keepalived_conns poller"),
    (WORKER, "Worker", "log alive nr_conns keepalived_conns"),
    (HOOKS, "Worker", "pid booted sockets"),
    (RECEIVER, "TConn", "sock client parser initialized data_ready timeout"),
    (RECEPTION, "Unreader", "sock mxchunk max_body_chunk"),
    (START, "Logger", "error_log loglevel"),
]


def gone(user, what):
    """The message of a failure."""
    versions = f"gunicorn {version('gunicorn')}, prometheus_client {version('prometheus_client')}"
    return f"{user} relies on {what}, which has changed or is gone ({versions})."


@pytest.mark.parametrize(
    ("user", "owner", "name", "arguments"), METHODS, ids=lambda value: str(value)[:40]
)
def test_method_exists_with_its_arguments(user, owner, name, arguments):
    method = getattr(owner, name, None)
    assert method is not None, gone(user, f"{owner.__name__}.{name}")
    found = list(inspect.signature(method).parameters)
    assert found == arguments, gone(user, f"the arguments of {owner.__name__}.{name}")


@pytest.mark.parametrize(("user", "owner", "names"), ATTRIBUTES)
def test_attribute_exists(objects, user, owner, names):
    for name in names.split():
        assert hasattr(objects[owner], name), gone(user, f"{owner}.{name}")


def test_gunicorns_master_has_what_the_hooks_read():
    for name in ("WORKERS", "num_workers"):
        assert hasattr(Arbiter, name), gone(HOOKS, f"Arbiter.{name}")
    same = Arbiter.APP_LOAD_ERROR == EXIT_APP_LOAD_ERROR
    assert same, gone("predictor/server/console.py", "Arbiter.APP_LOAD_ERROR")


def test_gunicorn_passes_the_connection_to_the_app(objects):
    parsed = RequestParser(Config(), [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"], None)
    environ = default_environ(next(parsed), objects["TConn"].sock, Config())
    assert "gunicorn.socket" in environ, gone(REQUEST, "environ['gunicorn.socket']")


def test_gunicorns_event_loop_calls_what_the_worker_overrides():
    """A method that is never called would leave its override without effect."""
    source = inspect.getsource(inspect.getmodule(ThreadWorker))
    called = ["notify()", "set_accept_enabled(", "murder_pending()", "enqueue_req(conn)"]
    called += ["self.finish_request, conn", "_keepalive_after(conn", "handle_request(req, conn)"]
    for call in called:
        assert f"self.{call.removeprefix('self.')}" in source, gone(RECEIVER, f"a call of {call}")


def test_metric_files_have_their_kind_and_process_in_their_names(tmp_path):
    """Another process writes them, because prometheus_client decides when it is imported."""
    program = """if True:
        import os
        from prometheus_client import Counter, Gauge, Histogram
        Counter("a", "").inc()
        Histogram("b", "").observe(1)
        Gauge("c", "", multiprocess_mode="livesum").set(1)
        print(os.getpid())"""
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    pid = done.stdout.strip()
    names = {path.name for path in tmp_path.iterdir()}
    expected = {f"counter_{pid}.db", f"histogram_{pid}.db", f"gauge_livesum_{pid}.db"}
    assert names == expected, gone(METRICS, "the names of the metric files")


def test_every_file_named_here_exists():
    users = {RECEIVER, WORKER, RECEPTION, HOOKS, START, METRICS, REQUEST}
    assert [user for user in users if not Path(ROOT, user).exists()] == []


@pytest.mark.parametrize("package", ["gunicorn", "prometheus-client"])
def test_requirements_limit_the_version_from_above(package):
    (line,) = [x for x in (ROOT / "requirements.txt").read_text().splitlines() if package in x]
    assert ",<" in line
