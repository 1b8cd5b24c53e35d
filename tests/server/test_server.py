"""A real gunicorn with the embedded model, its real weights, and real photographs."""

import base64
import io
import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests
from PIL import Image
from skimage import data

from bad_images import BAD_IMAGES
from paths import ROOT
from pictures import encode, picture
from running_server import Server

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
def server():
    running = Server(model="efficientnet_lite0").wait_until_ready()
    yield running
    assert running.stop() == 0, running.log
    running.close()


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


def test_a_chunked_body_may_have_as_many_bytes_as_another(start_toy):
    server = start_toy(max_upload_bytes=1000).wait_until_ready()
    photo = picture().ljust(1000, b"\0")
    found = [
        requests.post(f"{server.url}/predict", data=data).status_code
        for data in (photo, iter([photo[:9], photo[9:]]), iter([photo, b"1"]))
    ]
    assert found == [200, 200, 413]


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


def test_a_rotated_photo_gets_the_same_answer(server):
    photo = Image.fromarray(data.chelsea())
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    photo.transpose(Image.Transpose.ROTATE_90).save(turned, "PNG", exif=exif)
    upright = server.predict(encode(photo), top_k=5).json()
    assert server.predict(turned.getvalue(), top_k=5).json() == upright
