"""A real gunicorn with the embedded model, its real weights, and real photographs."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from time import monotonic

import psutil
import pytest
import requests
from PIL import Image
from skimage import data

from bad_images import BAD_IMAGES
from paths import ROOT
from pictures import encode
from predictor.engine.cpus import available_cpus
from running_server import Server
from waiting import wait_until

README = (ROOT / "README.md").read_text()
CATS = {"tiger_cat", "Egyptian_cat", "tabby"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with photographs in the public domain."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("chelsea", "coffee", "rocket", "camera"):
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def pair():
    """A server with two workers, both of them ready."""
    with closing(Server("--workers", "2", model="efficientnet_lite0")) as running:
        wait_until(lambda: running.loaded == 2)
        yield running


@pytest.mark.parametrize(
    ("name", "classes"),
    [("chelsea", CATS), ("coffee", {"espresso"}), ("rocket", {"missile"}), ("camera", {"tripod"})],
)
def test_a_photograph_gets_the_right_class(server, photos, name, classes):
    photo = (photos / f"{name}.png").read_bytes()
    answer = server.predict(photo).json()
    assert answer["class_name"] in classes
    top = server.predict(photo, top_k=5).json()["predictions"]
    assert len(top) == 5
    assert top[0]["class_id"] == answer["class_id"]


# Java's HttpClient offers HTTP/2 with every request.
UPGRADE = ["-H", "Connection: Upgrade, HTTP2-Settings", "-H", "Upgrade: h2c", "-H",
           "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA"]  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["-F", "file=@coffee.png"], id="form"),
        pytest.param(["--data-binary", "@coffee.png"], id="body"),
        pytest.param(["--data-binary", "@coffee.png", "-H", "Content-Type: image/png"], id="image"),
        pytest.param(["-T", "coffee.png"], id="put"),
        pytest.param(["-T", "-", "-H", "Transfer-Encoding: chunked"], id="chunked"),
        pytest.param([*UPGRADE, "--data-binary", "@coffee.png"], id="h2c"),
        pytest.param([*UPGRADE, "-T", "-", "-H", "Transfer-Encoding: chunked"], id="h2c chunked"),
        pytest.param(["-d", "@coffee.json", "-H", "Content-Type: application/json"], id="json"),
        pytest.param(["-F", "image=<coffee.b64"], id="base64 over 500 kB in a form"),
        pytest.param(["--data-urlencode", "image@coffee.b64"], id="base64 urlencoded"),
    ],
)
def test_curl_gets_the_documented_answer(server, photos, options):
    text = base64.b64encode((photos / "coffee.png").read_bytes()).decode()
    (photos / "coffee.b64").write_text(text)
    (photos / "coffee.json").write_text(f'{{"image": "data:image/png;base64,{text}"}}')
    with (photos / "coffee.png").open("rb") as stdin:
        done = subprocess.run(
            ["curl", "-sS", *options, f"{server.url}/predict"],
            cwd=photos, stdin=stdin, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.stdout == '{"class_id": "n07920052", "class_name": "espresso"}\n', done.stderr
    assert done.stdout in README


def resident_bytes(pid: int) -> int:
    return psutil.Process(pid).memory_info().rss


def test_an_explanation_is_a_picture_or_json(server, photos):
    def curl(*options):
        command = ["curl", "-sS", *options, "-F", "file=@coffee.png", f"{server.url}/explain"]
        return subprocess.run(command, cwd=photos, capture_output=True, timeout=60).stdout

    assert Image.open(io.BytesIO(curl())).size == (600, 400)
    assert json.loads(curl("-H", "Accept: application/json"))["class_name"] == "espresso"


def test_bad_images_are_refused_and_leak_no_memory(server, photos):
    """Each case twice: the first round allocates what stays, such as buffers."""

    def post_all():
        for case in BAD_IMAGES:
            response = server.predict(case.data)
            assert (case.name, response.status_code) == (case.name, case.status)
            assert response.status_code == 200 or response.json()["detail"]

    post_all()
    before = resident_bytes(server.worker)
    post_all()
    assert resident_bytes(server.worker) < before + 50_000_000
    assert server.predict((photos / "coffee.png").read_bytes()).json()["class_name"] == "espresso"


def test_there_are_at_least_forty_kinds_of_bad_images():
    assert len({case.name for case in BAD_IMAGES}) >= 40


def test_concurrent_requests_get_their_own_answers(server, photos):
    expected = {
        name: server.predict((photos / f"{name}.png").read_bytes()).json()
        for name in ("chelsea", "coffee", "rocket", "camera")
    }
    names = list(expected) * 10
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(
            lambda name: server.predict((photos / f"{name}.png").read_bytes()).json(), names
        )
    assert list(answers) == [expected[name] for name in names]


def test_a_body_over_the_limit_is_413_and_not_a_reset(start_toy):
    """The response arrives although the client still sends."""
    server = start_toy(max_upload_bytes=1000).wait_until_ready()
    response = server.predict(bytes(8_000_000))
    assert response.status_code == 413
    assert "1,000 bytes" in response.json()["detail"]


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


def test_a_killed_worker_is_replaced(start, photos):
    """The master has not imported torch, whose threads and CUDA do not survive a fork."""
    server = start().wait_until_ready()
    killed = server.worker
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: server.loaded == 2 and server.worker != killed)
    assert server.predict((photos / "coffee.png").read_bytes()).status_code == 200
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


def test_a_reload_replaces_the_process(start, photos):
    server = start().wait_until_ready()
    first = server.worker
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.loaded == 2 and server.worker != first)
    assert server.predict((photos / "coffee.png").read_bytes()).status_code == 200


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
def test_two_processes_have_own_processors_and_common_weights(pair, photos):
    server, workers = pair, pair.workers
    first, second = map(os.sched_getaffinity, workers)
    assert not first & second
    assert server.log.count("float32, 1 thread\n") == 2 or available_cpus() > 3
    weights_kb = 4_652_008 * 4 / 1024
    for mapped, copied in map(weights_in_memory, workers):
        assert mapped > 0.9 * weights_kb
        assert copied == 0
    coffee = (photos / "coffee.png").read_bytes()
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


def test_a_chunked_body_over_the_limit_is_413(start_toy, photos):
    server = start_toy(max_upload_bytes=100_000).wait_until_ready()
    photo = (photos / "coffee.png").read_bytes()
    response = requests.post(f"{server.url}/predict", data=iter([photo[:1000], photo[1000:]]))
    assert response.status_code == 413


def test_malformed_chunks_are_400(server):
    with socket.create_connection(server.address, timeout=60) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nbody\r\n"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("reader", "top_k"), [("| head -1", 1000), ("| true", 1), ("2>&1 | true", 1000)]
)
def test_the_command_line_ends_quietly_with_its_reader(photos, reader, top_k):
    """Also if the results fit into the buffer that Python writes at its end."""
    command = f"{sys.executable} -m predictor {photos} {photos}/*.png --format csv --top-k {top_k}"
    done = subprocess.run(
        ["bash", "-c", f"{command} {reader}; exit ${{PIPESTATUS[0]}}"], cwd=ROOT,
        env={**os.environ, "PREDICTOR_MODEL": "efficientnet_lite0"}, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.startswith("file,class_index" if "head" in reader else "")
    assert done.stderr == ""
    assert done.returncode == 141


def test_several_processes_serve_one_port(pair, photos):
    assert f" {max(1, available_cpus() // 2)} thread" in pair.log
    assert pair.predict((photos / "coffee.png").read_bytes()).status_code == 200


@pytest.mark.parametrize(
    ("options", "settings", "sentence"),
    [
        ([], {"modle": "vgg16"}, "Did you mean PREDICTOR_MODEL?"),
        ([], {"model": "resnet81"}, "Did you mean"),
        ([], {"weights": "/nowhere.pth"}, "PREDICTOR_WEIGHTS='/nowhere.pth' is not a file"),
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


def test_production_never_replaces_the_model(start, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")  # nothing can be downloaded
    server = start(model="vgg16")
    assert server.process.wait(timeout=60) == 4
    assert "cannot be downloaded" in server.log
    assert "PREDICTOR_MODEL=efficientnet_lite0" in server.log


def test_a_taken_port_stops_the_start_with_advice(server):
    port = server.url.rpartition(":")[2]
    environ = {**os.environ, "PORT": port}
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "wsgi:app"], cwd=ROOT, env=environ,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert f"Port {port} on 127.0.0.1 is taken" in done.stderr


def test_a_rotated_photo_gets_the_same_answer(server):
    photo = Image.fromarray(data.chelsea())
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    photo.transpose(Image.Transpose.ROTATE_90).save(turned, "PNG", exif=exif)
    upright = server.predict(encode(photo), top_k=5).json()
    assert server.predict(turned.getvalue(), top_k=5).json() == upright
