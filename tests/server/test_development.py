import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import click
import pytest
import requests
from flask.cli import run_command

from app import create_app
from conftest import store_of
from paths import ROOT
from predictor.cli.development import main
from predictor.engine.classifier import Classifier
from predictor.settings import Settings
from predictor.store.single import single
from predictor.web import flask_run
from tunnels import install, is_running


def run(*command, **environ):
    """Run a Python command to its end."""
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=os.environ | environ,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@contextmanager
def running_app(model, *options, **environ):
    """``python app.py`` with a model on a free port: the process."""
    command = [sys.executable, "app.py", "--port", "0", *options]
    env = os.environ | {"PREDICTOR_MODEL": str(model), **environ}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def line_with(pattern, process):
    """The first match in the lines that a process logs."""
    return next(found for line in process.stderr if (found := re.search(pattern, line)))


# The app


def test_building_an_app_loads_no_model():
    classifier = Classifier(Settings(), load=lambda *_: pytest.fail("loaded"))
    create_app(Settings(), single(Settings(), classifier))
    assert not classifier.loading.done()


def test_only_development_has_a_fallback_model():
    assert store_of(create_app()).settings.fallback_model == "efficientnet_lite0"
    assert Settings.from_env({}).fallback_model == "none"


def test_the_environment_overrides_developments_defaults(monkeypatch):
    monkeypatch.setenv("PREDICTOR_FALLBACK_MODEL", "none")
    assert store_of(create_app()).settings.fallback_model == "none"


# python app.py


def test_a_request_has_one_log_line_without_colours(net):
    with running_app(net, PREDICTOR_LOG_FORMAT="text") as process:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"Running on (http://\S+)", line):
                requests.get(found[1], timeout=60)
            if "GET / " in line:
                break
        process.terminate()
        lines += process.stderr.readlines()
    assert sum("GET / " in line for line in lines) == 1
    assert "\\x1b" not in "".join(lines)
    assert "development server" in "".join(lines)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_announced_url_answers_even_with_port_0(net, host):
    with running_app(net, "--host", host, PREDICTOR_LOG_FORMAT="text") as process:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "Cannot assign" in line or "not supported" in line:
                pytest.skip("this machine has no IPv6")
            if found := re.search(r"curl -F \S+ (\S+)/predict", line):
                break
        assert requests.get(f"{found[1]}/readyz", timeout=60).ok


def test_python_app_py_never_has_the_debugger(net):
    """Not even on all addresses, with FLASK_DEBUG, and with the header that it asks for."""
    with running_app(net, "--host", "0.0.0.0", FLASK_DEBUG="1") as process:
        port = line_with(r"127.0.0.1:(\d+)", process)[1]
        for path in ("/console", "/?__debugger__=yes&cmd=resource&f=debugger.js"):
            answer = requests.get(f"http://127.0.0.1:{port}{path}", timeout=60)
            assert "debugger" not in answer.text.lower()
        assert answer.headers["Content-Security-Policy"]


def test_a_model_that_cannot_be_loaded_leaves_no_tunnel_open(tmp_path):
    install("cloudflared.py", tmp_path)
    environ = {"PATH": str(tmp_path), "PREDICTOR_WEIGHTS": str(tmp_path / "none.pth")}
    done = run("app.py", "--share", "cloudflared", "--port", "0", **environ)
    assert done.returncode == 4
    assert not is_running(tmp_path / "process")
    assert "none.pth" in done.stderr


@pytest.mark.parametrize(
    ("options", "environ", "sentence"),
    [
        (["--share", "ngork"], {}, "invalid choice: 'ngork'"),
        (["--share", "--host", "192.0.2.1"], {}, "Cannot listen on 192.0.2.1:5000: Cannot assign"),
        (["--port", "70000"], {}, "'70000' is not a whole number between 0 and 65535"),
        ([], {"PREDICTOR_MAX_QUEUE": "many"}, "PREDICTOR_MAX_QUEUE='many' is not"),
    ],
    ids=["provider", "address", "port", "setting"],
)
def test_a_start_that_fails_says_why(monkeypatch, capsys, options, environ, sentence):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main(options)
    assert sentence in f"{ended.value}{capsys.readouterr().err}"
    assert ended.value.code not in (0, None)


def test_a_process_that_fails_to_start_says_why():
    done = run("app.py", PREDICTOR_MAX_QUEUE="many")
    assert done.returncode != 0
    assert "PREDICTOR_MAX_QUEUE='many' is not" in done.stderr
    assert "Traceback" not in done.stderr


# flask run


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ({"host": "::1", "port": 8000}, ("::1", 8000)),
        ({"host": None, "port": 0}, ("127.0.0.1", 0)),
        ({"host": None, "port": 5000, "reload": True}, None),
    ],
    ids=["given", "any port", "process that watches files"],
)
def test_flask_runs_address_is_read_from_its_command_line(options, address):
    with click.Context(click.Command("run"), info_name="run") as context:
        context.params = options
        assert flask_run.address() == address


# An app that prints when it is made, and when it would load its model.
PROBE = """
from app import create_app as real
from predictor.store.store import Store
Store.start = lambda self: print("LOADS", flush=True)
def create_app():
    import os
    app = real()
    print("MADE", os.environ.get("WERKZEUG_RUN_MAIN"), flush=True)
    return app
"""


@pytest.mark.parametrize(
    "options", [[], ["--debug"], ["--reload"]], ids=["plain", "debug", "reload"]
)
def test_flask_run_loads_the_model_once(tmp_path, options):
    """The reloader has two processes: one serves, and one watches the files."""
    (tmp_path / "probe.py").write_text(PROBE)
    command = [sys.executable, "-m", "flask", "--app", "probe", "run", "--port", "0", *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            served = any("Running on" in seen for seen in lines)
            if served and (not options or "MADE true\n" in lines):
                break
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=10)
    assert lines.count("LOADS\n") == 1, lines


def test_flask_app_selects_the_development_app():
    """Without FLASK_APP, Flask would prefer wsgi.py."""
    assert "predict.predict" in run("-m", "flask", "routes", FLASK_APP="app.py").stdout


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "photos.example.org"])
@pytest.mark.parametrize("option", ["--debug", "--debugger"])
def test_the_debugger_is_refused_where_others_can_reach_it(monkeypatch, host, option):
    monkeypatch.setenv("FLASK_DEBUG", "1" if option == "--debug" else "0")  # as flask sets it
    command = run_command.make_context("run", ["--host", host, option], resilient_parsing=True)
    with command, pytest.raises(SystemExit, match=f"The debugger cannot be served on {host},"):
        create_app()


@pytest.mark.parametrize(("host", "option"), [("0.0.0.0", "--debug"), ("::", "--debugger")])
def test_flask_run_ends_where_the_debugger_is_refused(host, option):
    done = run("-m", "flask", "--app", "app", "run", "--host", host, option)
    assert done.returncode == 1
    assert f"The debugger cannot be served on {host}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "unix:///tmp/x"])
def test_the_debugger_is_allowed_on_this_machine(host):
    assert flask_run.is_loopback(host)
