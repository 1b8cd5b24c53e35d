"""The undocumented parts of gunicorn, prometheus_client and asyncio that this package relies on.

Any release may change them, so requirements.txt limits the versions of both. If a test fails
here after an upgrade, adapt the file that its message names, then raise the limit.
"""

import inspect
import logging
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from gunicorn import sock
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http import wsgi
from gunicorn.http.body import CHUNK_EXT_RE
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from gunicorn.workers.base import Worker
from prometheus_client import mmap_dict, multiprocess

from paths import ROOT
from predictor.server.console import EXIT_APP_LOAD_ERROR

EXCHANGE = "predictor/server/exchange.py"
EVENT_LOOP = "predictor/server/event_loop.py"
WORKER = "predictor/server/worker.py"
RECEPTION = "predictor/server/reception.py"
HOOKS = "predictor/server/hooks.py"
START = "predictor/server/start.py"
METRICS = "predictor/engine/metric_files.py"

# Who relies on it, its owner, its name, and its arguments.
METHODS = [
    (RECEPTION, Request, "__init__", ["self", "cfg", "unreader", "peer_addr", "req_number"]),
    (RECEPTION, Request, "parse_headers", ["self", "data", "from_trailer"]),
    (RECEPTION, IterUnreader, "__init__", ["self", "iterable"]),
    (EXCHANGE, wsgi.Response, "start_response", ["self", "status", "headers", "exc_info"]),
    (EXCHANGE, wsgi.Response, "write", ["self", "arg"]),
    (EXCHANGE, wsgi.Response, "close", ["self"]),
    (EXCHANGE, wsgi.Response, "force_close", ["self"]),
    (EXCHANGE, wsgi.Response, "should_close", ["self"]),
    (EVENT_LOOP, sock, "ssl_context", ["conf"]),
    (EVENT_LOOP, Worker, "run", ["self"]),
    (WORKER, Worker, "handle_exit", ["self", "sig", "frame"]),
    (WORKER, Worker, "notify", ["self"]),
    (WORKER, Worker, "init_process", ["self"]),
    (WORKER, Worker, "load_wsgi", ["self"]),
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


HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def objects():
    """One object of each class of gunicorn whose attributes are used."""
    cfg = Config()
    worker = Worker(1, 0, [], None, 30, cfg, logging.getLogger())
    request = Request(cfg, IterUnreader([HEAD]), ("127.0.0.1", 1), 1)
    response, _ = wsgi.create(request, None, ("127.0.0.1", 1), ("127.0.0.1", 2), cfg)
    yield {
        "Worker": worker,
        "Request": request,
        "Response": response,
        "Logger": Logger(cfg),
    }
    worker.tmp.close()


ATTRIBUTES = [
    (EVENT_LOOP, "Worker", "cfg log alive sockets ppid nr max_requests"),
    (HOOKS, "Worker", "age pid booted sockets"),
    (RECEPTION, "Request", "method path version body headers"),
    (EXCHANGE, "Response", "must_close"),
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
    for name in ("WORKERS", "num_workers", "manage_workers", "reap_workers", "spawn_worker"):
        assert hasattr(Arbiter, name), gone(HOOKS, f"Arbiter.{name}")
    same = Arbiter.APP_LOAD_ERROR == EXIT_APP_LOAD_ERROR
    assert same, gone("predictor/server/console.py", "Arbiter.APP_LOAD_ERROR")


def test_gunicorns_parser_says_how_the_body_is_framed(objects):
    """By the number of its bytes, or in chunks."""
    assert ("TRANSFER-ENCODING", "chunked") in objects["Request"].headers, gone(
        RECEPTION, "headers"
    )
    assert CHUNK_EXT_RE.fullmatch(b";a=b"), gone(RECEPTION, "CHUNK_EXT_RE")
    plain = Request(Config(), IterUnreader([b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"]), None, 1)
    assert plain.body.reader.length == 0, gone(RECEPTION, "body.reader.length")


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
    users = {EXCHANGE, EVENT_LOOP, WORKER, RECEPTION, HOOKS, START, METRICS}
    assert [user for user in users if not Path(ROOT, user).exists()] == []


@pytest.mark.parametrize("package", ["gunicorn", "prometheus-client"])
def test_requirements_limit_the_version_from_above(package):
    (line,) = [x for x in (ROOT / "requirements.txt").read_text().splitlines() if package in x]
    assert ",<" in line
