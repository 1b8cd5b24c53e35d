"""macOS and Windows, as far as Linux can show it: ``other_system.py`` takes away what they lack."""

import io
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import requests
from PIL import Image

from paths import ROOT, TESTS
from waiting import wait_until

pytestmark = pytest.mark.server
ENVIRON = {"PREDICTOR_MODEL": "efficientnet_lite0", "PREDICTOR_LOG_FORMAT": "text"}


def command(system, *module):
    return [sys.executable, str(TESTS / "other_system.py"), system, *module]


@contextmanager
def development_server(system):
    """``python app.py`` on a free port: its URL."""
    environ = os.environ | ENVIRON | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command(system, "app", "--port", "0"), cwd=ROOT, env=environ, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"curl -F \S+ (\S+)/predict", line):
                yield found[1]
                return
        pytest.fail("".join(lines))
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.parametrize("system", ["macos", "windows"])
def test_the_development_server_classifies(system, coffee):
    with development_server(system) as url:
        found = requests.post(f"{url}/predict", files={"file": coffee}, timeout=60).json()
        explained = requests.post(f"{url}/explain", files={"file": coffee}, timeout=60)
        metrics = requests.get(f"{url}/metrics", timeout=60)
    assert found["class_name"] == "espresso"
    assert explained.headers["Content-Type"] == "image/png"
    assert "predictor_predictions_total" in metrics.text


@pytest.mark.parametrize("system", ["macos", "windows"])
def test_the_command_line_classifies(system, coffee, tmp_path):
    (tmp_path / "coffee.jpg").write_bytes(coffee)
    Image.open(io.BytesIO(coffee)).save(tmp_path / "coffee.tif")  # decoded in a process of its own
    done = subprocess.run(
        command(system, "predictor", str(tmp_path)), cwd=ROOT,
        env=os.environ | ENVIRON | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.count("espresso") == 2, done.stderr


def test_gunicorn_on_macos_serves_and_replaces_a_worker(start, coffee):
    """Without shared weights, processor sets and /proc."""
    options = ("--pythonpath", str(ROOT), "--workers", "2")
    server = start(*options, command=command("macos", "gunicorn", "wsgi:app"))
    wait_until(lambda: server.loaded == 2)
    assert server.predict(coffee).json()["class_name"] == "espresso"
    os.kill(server.worker, signal.SIGKILL)
    wait_until(lambda: server.loaded == 3)
    assert server.predict(coffee).json()["class_name"] == "espresso"
    assert 'predictor_predictions_total{model="efficientnet_lite0"' in server.get("/metrics").text
    assert server.stop() == 0
    assert "Traceback" not in server.log
