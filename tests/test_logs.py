import io
import json
import logging
import os
import pty
import subprocess
import sys
import threading
import warnings

import pytest

from predictor.logs import JSONFormatter, TextFormatter, configure
from running_server import ROOT, Server, ToyServer
from waiting import wait_until

# Texts with which a client could forge a line, move the cursor or reverse the text.
FORGERIES = [
    pytest.param(f"a{c}2026-01-01 00:00:00 [1] INFO forged", id=repr(c))
    for c in ("\n", "\r", "\r\n", "\v", "\f", "\x1b[2K", "\b", "\x85", "\u2028", "\u202e", "\udc80")
]


def record(message, *args, **extra):
    made = logging.makeLogRecord({"name": "some", "levelname": "INFO", "msg": message, **extra})
    made.args = args[0] if args and isinstance(args[0], dict) else args
    return made


def failure(message):
    try:
        raise ValueError(message)
    except ValueError:
        return sys.exc_info()


@pytest.mark.parametrize("text", FORGERIES)
@pytest.mark.parametrize("formatter", [TextFormatter(), JSONFormatter()])
def test_a_clients_text_cannot_forge_a_log_line(formatter, text):
    for made in (record(text), record("%s", text), record("%(path)s", {"path": text})):
        assert formatter.format(made).isprintable()


@pytest.mark.parametrize("text", FORGERIES)
def test_a_clients_text_in_a_traceback_is_indented(text):
    first, *others = TextFormatter().format(record("m", exc_info=failure(text))).split("\n")
    assert first.endswith("m")
    assert "ValueError: a" in "".join(others)
    assert all(line.startswith("    ") and line.isprintable() for line in others)


@pytest.mark.parametrize("text", FORGERIES)
def test_a_traceback_is_a_member_of_the_json_object(text):
    line = JSONFormatter().format(record("m", exc_info=failure(text)))
    assert line.isprintable()
    assert json.loads(line)["traceback"].endswith(f"ValueError: {text}")


def test_named_arguments_cannot_replace_the_standard_members():
    args = {"status": 200, "level": "forged"}
    line = json.loads(JSONFormatter().format(record("%(status)d", args, process=7)))
    assert line["status"] == 200
    assert (line["level"], line["message"], line["logger"], line["pid"]) == (
        "INFO", "200", "some", 7,
    )  # fmt: skip
    assert list(line)[:2] == ["time", "level"]


def test_letters_of_all_languages_are_not_escaped():
    assert TextFormatter().format(record("Größe 25 × 3, 猫")).endswith("Größe 25 × 3, 猫")


def test_a_block_is_written_unchanged_as_text():
    made = record("%(url)s", {"url": "/"}, block="a\n  b")
    assert TextFormatter().format(made) == "a\n  b"
    assert json.loads(JSONFormatter().format(made))["message"] == "/"


# A record, a warning and an exception that ends a thread.
LOGGING = """
import logging, sys, threading, warnings
from predictor import logs
logs.configure(sys.argv[1])
logging.getLogger("any").info("written")
warnings.warn("careful")
thread = threading.Thread(target=lambda: 1 / 0, name="some thread")
thread.start()
thread.join()
"""


def run(log_format, stderr=subprocess.PIPE):
    command = [sys.executable, "-c", LOGGING, log_format]
    return subprocess.run(command, cwd=ROOT, stderr=stderr, text=True, timeout=60).stderr


def test_warnings_and_failed_threads_are_logged_as_json():
    lines = [json.loads(line) for line in run("json").splitlines()]
    assert [line["level"] for line in lines] == ["INFO", "WARNING", "CRITICAL"]
    assert "careful" in lines[1]["message"]
    assert "some thread" in lines[2]["message"]
    assert "ZeroDivisionError" in lines[2]["traceback"]


def test_auto_is_json_without_a_terminal():
    assert run("auto").startswith('{"time": ')


def test_auto_is_text_on_a_terminal():
    ours, theirs = pty.openpty()
    try:
        run("auto", stderr=theirs)
        assert b"INFO written" in os.read(ours, 10_000)
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.fixture
def logging_restored(monkeypatch):
    """Restore what ``configure`` changes in the process."""
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    level, shown = logging.root.level, warnings.showwarning
    yield
    logging.captureWarnings(False)
    assert warnings.showwarning is shown
    logging.root.setLevel(level)


def test_handlers_without_a_stream_are_supported(logging_restored):
    lines = []

    class ListHandler(logging.Handler):
        def emit(self, record):
            lines.append(self.format(record))

    configure("auto", [ListHandler()], logging.WARNING)
    logging.getLogger("any").info("dropped")
    logging.getLogger("any").warning("written")
    assert [json.loads(line)["message"] for line in lines] == ["written"]


def test_the_second_configure_replaces_the_first(logging_restored):
    streams = [io.StringIO(), io.StringIO()]
    for stream in streams:
        configure("text", [logging.StreamHandler(stream)])
    logging.getLogger("any").info("written")
    assert [stream.getvalue().count("written") for stream in streams] == [0, 1]


@pytest.mark.server
def test_a_server_logs_only_json_and_a_line_for_each_request(net):
    """gunicorn's lines and ours, without gunicorn's access lines."""
    server = Server(model=net, log_format="json")
    server.wait_until_ready()
    response = server.predict(b"no photo", token="secret")
    server.stop()
    lines = [json.loads(line) for line in server.log.splitlines()]
    server.close()
    assert {line["logger"] for line in lines} >= {
        "gunicorn.error",
        "predictor.server.console",
        "predictor.web.request_log",
    }
    (ready,) = [line for line in lines if line["message"].startswith("Ready at")]
    assert ready["model"]["name"] == "net"
    (asked,) = [line for line in lines if line.get("path") == "/predict"]
    assert asked["request_id"] == response.headers["X-Request-ID"]
    assert "secret" not in str(lines)


@pytest.mark.server
def test_by_default_a_pipe_gets_json_and_the_line_to_try():
    """As with ``make serve 2>&1 | tee log``: the log is JSON, and the block is printed as well."""
    server = ToyServer(log_format="auto")
    wait_until(lambda: "/predict\n" in server.log)
    assert server.stop() == 0
    log = [line for line in server.log.splitlines() if line]
    server.close()
    block = [line for line in log if not line.startswith("{")]
    assert block[0].startswith("Ready at http://127.0.0.1:")
    assert block[-1].split()[:4] == ["try", "curl", "-F", "file=@photo.jpg"]
    assert sum('"message": "Ready at' in line for line in log) == 1
