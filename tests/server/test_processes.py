"""A real gunicorn's processes: their start, their end and their replacement."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest
import requests
from gunicorn.arbiter import Arbiter
from PIL import Image
from skimage import data

from paths import ROOT
from pictures import encode
from predictor.engine.cpus import available_cpus
from running_server import Server
from waiting import wait_until


@pytest.fixture(scope="module")
def pair():
    """A server with two workers, both of them ready."""
    with closing(Server("--workers", "2", model="efficientnet_lite0")) as running:
        wait_until(lambda: running.loaded == 2)
        yield running


def test_the_server_listens_before_the_model_is_loaded(start):
    server = start()
    assert server.get("/healthz").status_code == 200
    early = server.predict(b"")
    assert early.status_code == 503  # torch takes seconds to import
    assert early.headers["Retry-After"]
    server.wait_until_ready()
    parts = ("Ready at http://", "efficientnet_lite0, 4,652,008 parameters", "curl -F file=@")
    wait_until(lambda: all(part in server.log for part in parts))  # logged soon after


def has_torch(pid):
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


def test_a_killed_worker_is_replaced(start, coffee):
    """The master has not imported torch, whose threads and CUDA do not survive a fork."""
    server = start().wait_until_ready()
    killed = server.worker
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: server.loaded == 2 and server.worker != killed)
    assert server.predict(coffee).status_code == 200
    assert (has_torch(server.process.pid), has_torch(server.worker)) == (False, True)


def test_a_request_in_progress_is_finished_after_sigterm(start_toy):
    """The second half of the body is sent after the signal."""
    server = start_toy().wait_until_ready()
    photo = encode(Image.fromarray(data.coffee()), "JPEG")
    signalled = threading.Event()

    def body():
        yield photo[:1000]
        server.process.terminate()
        wait_until(lambda: "Handling signal: term" in server.log)
        signalled.set()
        yield photo[1000:]

    response = requests.post(f"{server.url}/predict", data=body(), timeout=60)
    assert signalled.is_set()
    assert response.json()["class_name"] == "red_thing"
    assert server.process.wait(timeout=60) == 0


def test_a_reload_replaces_the_process(start_toy, coffee):
    server = start_toy().wait_until_ready()
    first = server.worker
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.loaded == 2 and server.worker != first)
    assert server.predict(coffee).status_code == 200


def weights_in_memory(pid):
    """Kilobytes of the shared weights in a process: mapped, and copied because it wrote to them.

    Linux also counts a page as private if no other process has read it yet.
    """
    mapped = copied = 0
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            inside = "memfd:weights" in line
        elif inside and line.startswith("Rss:"):
            mapped += int(line.split()[1])
        elif inside and line.startswith("Anonymous:"):
            copied += int(line.split()[1])
    return mapped, copied


@pytest.mark.skipif(available_cpus() < 2, reason="needs two processors")
def test_two_processes_have_own_processors_and_common_weights(pair, coffee):
    server, workers = pair, pair.workers
    first, second = map(os.sched_getaffinity, workers)
    assert not first & second
    assert server.log.count("float32, 1 thread\n") == 2 or available_cpus() > 3
    weights_kb = 4_652_008 * 4 / 1024
    for mapped, copied in map(weights_in_memory, workers):
        assert mapped > 0.9 * weights_kb
        assert copied == 0
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: server.predict(coffee).json(), range(16)))
    assert {answer["class_name"] for answer in answers} == {"espresso"}

    os.kill(workers[0], signal.SIGKILL)  # its replacement maps the same weights
    wait_until(lambda: server.loaded == 3)
    assert os.sched_getaffinity(server.worker) == first
    assert weights_in_memory(server.worker)[1] == 0


@pytest.mark.parametrize("delay_s", [0.2, 0.5, 2.0])
def test_sigterm_while_loading_ends_the_server_cleanly(start, delay_s):
    server = start()
    assert server.url
    began = monotonic()
    wait_until(lambda: monotonic() > began + delay_s)  # during the imports
    assert server.stop() == 0
    assert "terminate" not in server.log


def test_several_processes_serve_one_port(pair, coffee):
    assert f" {max(1, available_cpus() // 2)} thread" in pair.log
    assert pair.predict(coffee).status_code == 200


@pytest.mark.parametrize(
    ("options", "settings", "sentence"),
    [
        ([], {"modle": "vgg16"}, "Did you mean PREDICTOR_MODEL?"),
        ([], {"model": "resnet81"}, "Did you mean"),
        (
            [],
            {"weights": "/nowhere.pth"},
            "PREDICTOR_WEIGHTS is '/nowhere.pth', which does not exist",
        ),
        ([], {"labels": "/nowhere.json"}, "No such file"),
        (["--preload"], {}, "Remove --preload"),
    ],
    ids=["unknown setting", "unknown model", "no weights", "no labels", "preload"],
)
def test_a_server_that_cannot_start_says_why(start, options, settings, sentence):
    server = start(*options, **settings)
    assert server.process.wait(timeout=60) != 0
    assert sentence in server.log
    assert "Traceback" not in server.log


def test_app_that_cannot_be_imported_stops_the_server(start, tmp_path):
    """Without torch, threads load the model then. The interpreter's end would abort them."""
    (tmp_path / "wsgi.py").write_text("import time; time.sleep(0.3); raise RuntimeError('faulty')")
    server = start("--pythonpath", str(tmp_path))
    assert server.process.wait(timeout=60) == Arbiter.WORKER_BOOT_ERROR
    assert "faulty" in server.log
    assert server.log.count("Booting worker") == 1


def test_production_never_replaces_the_model(start, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")  # nothing can be downloaded
    server = start(model="vgg16")
    assert server.process.wait(timeout=60) == 4
    assert "cannot be downloaded" in server.log
    assert "PREDICTOR_MODEL=efficientnet_lite0" in server.log


def test_a_taken_port_stops_the_start_with_advice(start_toy):
    port = start_toy().url.rpartition(":")[2]
    environ = {**os.environ, "PORT": port}
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "wsgi:app"], cwd=ROOT, env=environ,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert f"Port {port} on 127.0.0.1 is taken" in done.stderr
