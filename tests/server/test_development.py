import os
import re
import signal
import subprocess
import sys

import pytest
import requests

from app import _is_here, announce, create_app, describe
from conftest import ToyInfo, toy_model
from paths import ROOT
from predictor.engine.classifier import Classifier
from predictor.errors import WeightsError
from predictor.settings import Settings
from tunnels import install, is_running
from waiting import wait_until


def test_an_app_is_made_without_loading_anything():
    classifier = Classifier(Settings(), load=lambda *_: pytest.fail("loaded"))
    app = create_app(Settings(), classifier)
    assert app.extensions["predictor"].classifier is classifier
    assert not classifier.loading.done()


def test_development_lets_the_small_model_stand_in_and_production_does_not():
    assert (
        create_app().extensions["predictor"].classifier.settings.fallback_model
        == "efficientnet_lite0"
    )
    assert Settings.from_env({}).fallback_model == "none"


def test_the_environment_has_the_last_word_over_developments_defaults(monkeypatch):
    monkeypatch.setenv("PREDICTOR_FALLBACK_MODEL", "none")
    assert create_app().extensions["predictor"].classifier.settings.fallback_model == "none"


def test_what_is_served_is_said_with_a_line_to_try():
    class Info(ToyInfo):
        device, precision, threads, parameters = "cpu", "float32", 2, 1234
        notice = "A stands in for B."

    engine = toy_model()
    text = describe(type(engine)(engine.model, Info(), engine.labels), "http://127.0.0.1:5000")
    parts = [
        "NOTE",
        "A stands in for B.",
        "toy, 1,234 parameters, 3 classes",
        "toy.pth",
        "cpu, float32, 2 threads",
        "curl -F file=@photo.jpg http://127.0.0.1:5000/predict",
    ]
    assert [part for part in parts if part not in text] == []


@pytest.mark.parametrize("error", [WeightsError("Only half is there."), ValueError("Only half")])
def test_a_model_that_cannot_be_served_ends_the_process_with_a_sentence(monkeypatch, caplog, error):
    def load(*_):
        raise error

    ended = []

    def leave(status):
        ended.append(status)
        raise RuntimeError("The real os._exit does not return, either.")

    monkeypatch.setattr(os, "_exit", leave)
    classifier = Classifier(Settings(), load)
    announce(classifier, "http://127.0.0.1:5000")
    classifier.start()
    wait_until(lambda: ended)
    assert ended == [4]  # gunicorn's master stops on it, and does not try for ever
    assert "Only half" in caplog.text


# What a process under `flask run` sees, told by an app that prints it instead of loading.
PROBE = """
from app import create_app as real
from predictor.engine.classifier import Classifier
Classifier.start = lambda self: print("LOADS", flush=True)
def create_app():
    import os
    app = real()
    print("MADE", os.environ.get("WERKZEUG_RUN_MAIN"), flush=True)
    return app
"""


@pytest.mark.parametrize(
    "options", [[], ["--debug"], ["--reload"]], ids=["plain", "debug", "reload"]
)
def test_flask_run_loads_the_model_once_also_under_the_reloader(tmp_path, options):
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
            served = sum("Running on" in seen for seen in lines)
            if served and (not options or "MADE true\n" in lines):
                break
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=10)
    assert lines.count("LOADS\n") == 1, lines


def test_in_development_a_request_has_one_line_too_and_none_is_coloured():
    command = [sys.executable, "app.py", "--port", "0"]
    env = {**os.environ, "PREDICTOR_MODEL": "efficientnet_lite0", "PREDICTOR_LOG_FORMAT": "text"}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
    lines = []
    try:
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"Running on (http://\S+)", line):
                requests.get(found[1], timeout=60)
            if "GET / " in line:
                break
    finally:
        process.terminate()
        lines += process.communicate(timeout=60)[1].splitlines()
    assert sum("GET / " in line for line in lines) == 1
    assert "\\x1b" not in "".join(lines)
    assert "development server" in "".join(lines)


def test_flask_run_takes_the_development_app_and_not_production(tmp_path):
    """`flask run` prefers wsgi.py unless it is told otherwise; FLASK_APP tells it."""
    command = [sys.executable, "-m", "flask", "routes"]
    env = {**os.environ, "FLASK_APP": "app.py"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert "/predict" in done.stdout
    assert "predict.predict" in done.stdout


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "photos.example.org"])
@pytest.mark.parametrize("options", [["--debug"], ["--debugger"]], ids=lambda options: options[0])
def test_the_debugger_is_not_served_where_others_reach_it(host, options):
    command = [sys.executable, "-m", "flask", "--app", "app", "run", "--host", host, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"The debugger is not served on {host}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "unix:///tmp/x"])
def test_the_debugger_is_served_to_this_machine(host):
    assert _is_here(host)


def test_python_app_py_has_no_debugger_whatever_the_environment_says():
    """On an address that others reach, with the header that werkzeug's own guard asks for."""
    command = [sys.executable, "app.py", "--host", "0.0.0.0", "--port", "0"]
    env = {**os.environ, "FLASK_DEBUG": "1", "PREDICTOR_MODEL": "efficientnet_lite0"}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
    try:
        port = next(m[1] for line in process.stderr if (m := re.search(r"127.0.0.1:(\d+)", line)))
        for path in ("/console", "/?__debugger__=yes&cmd=resource&f=debugger.js"):
            answer = requests.get(f"http://127.0.0.1:{port}{path}", timeout=60)
            assert "debugger" not in answer.text.lower()
        assert answer.headers["Content-Security-Policy"]
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_a_model_that_cannot_be_served_leaves_no_tunnel_behind(tmp_path):
    install("cloudflared.py", tmp_path)
    command = [sys.executable, "app.py", "--share", "cloudflared", "--port", "0"]
    env = {**os.environ, "PATH": str(tmp_path), "PREDICTOR_WEIGHTS": str(tmp_path / "none.pth")}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 4
    assert not is_running(tmp_path / "process")
    assert "none.pth" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--share", "ngork"], "invalid choice: 'ngork'"),
        (["--share", "--host", "192.0.2.1"], "Nobody can listen on 192.0.2.1:5000 (Cannot assign"),
    ],
    ids=["no such provider", "no such address"],
)
def test_what_cannot_be_shared_is_a_sentence(options, said):
    command = [sys.executable, "app.py", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
