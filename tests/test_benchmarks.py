"""Short runs of the benchmark and of the soak; the tests do not judge the speed."""

import asyncio
import base64
import json
import re
import subprocess
import sys
from argparse import Namespace
from collections import Counter
from email import message_from_bytes
from pathlib import Path

import psutil
import pytest

from benchmarks import __main__ as benchmark
from benchmarks import recipes
from benchmarks.load import read_response, whole_request
from benchmarks.report import best_bare, best_shapes, circumstances, markdown, ratios
from benchmarks.servers import Recipe, running
from paths import ROOT
from tools.soak import Balance, Usage
from tools.soak_clients import Ledger

# Answers 200 to whole requests with a JPEG in the field of a form. "ours": as this app does, too.
STAND_IN = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200, b'{"model": {"precision": "float32"}}')

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        silent = {"BENTOML_DO_NOT_TRACK", "RAY_USAGE_STATS_ENABLED"} <= set(os.environ)
        right = b'name="images"' in body and b"\\xff\\xd8" in body and self.path == "/classify"
        self.answer(200 if sys.argv[1:] == ["ours"] or (silent and right) else 400)

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def test_a_short_benchmark_writes_figures_and_a_plot(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--model", "squeezenet1_1", "--seconds", "0.5"]
    options = ["--rounds", "1", "--clients", "2", "--loads", "0.5", "--only", "this app", "w 2"]
    options += ["--output", str(tmp_path)]
    done = subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "bench.json").read_text())
    assert all(turn["images_per_s"] > 0 for turns in report["rows"].values() for turn in turns)
    assert "textbook, -w 2, 2 clients" in report["rows"]
    assert "this app, 2 clients: p50 " in done.stdout
    assert "times the best textbook's rate" in done.stdout
    for precision in ("float32", "int8"):
        assert report["precision"][f"this app ONNX {precision}"] == f"ONNX {precision}"
        assert f"bare ONNX {precision}: " in done.stdout
        assert f"this app ONNX {precision}, 2 clients: p50 " in done.stdout
    assert {"date", "machine", "versions"} < set(report)
    assert f"{report['command']}; torch " in done.stdout
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def options_for(tmp_path, **given):
    """The options of a run that takes a second."""
    defaults = {"model": "squeezenet1_1", "precision": "float32", "seconds": 0.2, "rounds": 2}
    defaults |= {"clients": [1, 2], "loads": [], "calibrate": None, "only": None, "peers": True}
    return Namespace(**defaults, output=tmp_path, **given)


@pytest.fixture
def stand_in(tmp_path):
    """The name and the command of a server that takes the place of a real one."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    return lambda name, *arguments: (name, ("{python}", str(script), *arguments))


def test_peers_are_measured_beside_this_app(stand_in, tmp_path, monkeypatch, capsys):
    where = "/classify", "multipart/form-data images"
    peers = {"json": (*stand_in("Stand-in"), *where), "absent_peer": ("Absent", (), *where)}
    peers["os"] = ("Broken", ("{python}", "-c", "raise SystemExit('no port')"), *where)
    monkeypatch.setattr(recipes, "PEERS", peers)
    monkeypatch.setattr(recipes, "ours", lambda *_: [Recipe(*stand_in("this app", "ours"), {})])
    monkeypatch.setenv("PATH", "")
    report = benchmark._measure(options_for(tmp_path), tmp_path)
    assert {name: len(turns) for name, turns in report["rows"].items()} == dict.fromkeys(
        (
            "this app, 1 clients",
            "this app, 2 clients",
            "Stand-in, 1 clients",
            "Stand-in, 2 clients",
        ),
        2,
    )
    assert all(turn["refused"] == 0 for turns in report["rows"].values() for turn in turns)
    assert re.search(
        r"Stand-in, 2 clients: [\d.]+ times the rate of this app", "\n".join(ratios(report))
    )
    assert [line.split(" | ")[0] for line in markdown(report)][2:] == ["| this app", "| Stand-in"]
    log = capsys.readouterr().err
    assert log.count("left out from here on: Broken did not start:\nno port") == 1
    assert re.findall("left out: (.*)", log) == [
        "Absent: not installed; `make bench-peers` installs it",
        "TorchServe: not on PATH: torchserve, torch-model-archiver, java",
    ]


def test_only_chosen_servers_are_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "onnx", lambda *_: [Recipe("this app ONNX int8", (), {})])
    chosen = options_for(tmp_path)
    chosen.peers, chosen.only = False, ["int8", "-w 2"]
    (tmp_path / "photo.jpg").touch()
    found = benchmark._recipes(chosen, tmp_path / "weights.pth", tmp_path)
    assert [one.name for one in found] == ["this app ONNX int8", "textbook, -w 2"]


def test_without_onnxruntime_a_line_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "find_spec", lambda name: name != "onnxruntime")
    with pytest.raises(recipes.Missing, match="^ONNX: not installed: onnxruntime$"):
        next(recipes.onnx(options_for(tmp_path), Path(), tmp_path))


def test_model_that_cannot_be_exported_is_left_out(tmp_path):
    (tmp_path / "weights.pth").touch()
    left_out = recipes.onnx(options_for(tmp_path), tmp_path / "weights.pth", tmp_path)
    with pytest.raises(
        recipes.Missing, match="^this app ONNX float32: the export failed: .*weights"
    ):
        next(left_out)


def test_ray_is_left_out_where_others_could_reach_it(monkeypatch):
    monkeypatch.setattr(recipes, "find_spec", bool)
    monkeypatch.setattr("socket.if_nameindex", lambda: [(1, "lo"), (2, "eth0")])
    with pytest.raises(recipes.Missing, match="Ray Serve: it listens on all interfaces"):
        recipes.peer("ray.serve", "vgg16", Path(), b"")
    monkeypatch.setattr("socket.if_nameindex", lambda: [(1, "lo")])
    assert [one.name for one in recipes.peer("ray.serve", "vgg16", Path(), b"")] == ["Ray Serve"]


def test_every_peer_is_pinned_and_listens_on_this_machine_only():
    pinned = re.findall(
        r"^([\w-]+)(?:\[\w+\])?==", (ROOT / "requirements-peers.txt").read_text(), re.M
    )
    assert {name.partition(".")[0] for name in recipes.PEERS} == set(pinned)
    for _, command, *_ in recipes.PEERS.values():
        module = next(one for one in command if one.startswith("benchmarks.")).partition(":")[0]
        source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
        assert "127.0.0.1" in (*command, *re.findall("[0-9.]{9}", source))


@pytest.mark.parametrize(
    "form", ["image/jpeg", "application/json image", "multipart/form-data image"]
)
def test_request_carries_the_photo_in_the_form_of_its_server(form):
    photo = bytes(range(256))
    head, _, body = whole_request("localhost", photo, "/classify", form).partition(b"\r\n\r\n")
    line, _, fields = head.partition(b"\r\n")
    assert line == b"POST /classify HTTP/1.1"
    headers = message_from_bytes(fields)
    assert int(headers["Content-Length"]) == len(body)
    if headers.get_content_type() == "application/json":
        assert base64.b64decode(json.loads(body)["image"]) == photo
    elif headers.get_content_type() == "multipart/form-data":
        parts = message_from_bytes(fields + b"\r\n\r\n" + body).get_payload()
        assert [part.get_param("name", header="Content-Disposition") for part in parts] == ["image"]
        assert photo in body
    else:
        assert (headers.get_content_type(), body) == ("image/jpeg", photo)


@pytest.mark.parametrize(
    "answer",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    ],
)
def test_response_is_read_to_its_end(answer):
    async def read():
        reader = asyncio.StreamReader()
        reader.feed_data(b"HTTP/1.1 200 OK\r\n" + answer + b"HTTP/1.1 503")
        return await read_response(reader), await reader.readexactly(12)

    response, rest = asyncio.run(read())
    assert (response.status, response.body, rest) == (200, b"hello", b"HTTP/1.1 503")


def test_a_server_is_stopped_with_all_that_it_has_started(tmp_path):
    """As Java is, which TorchServe leaves running; this one also ignores SIGTERM."""
    child = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    leaves = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])"
    (tmp_path / "leaves.py").write_text(leaves + STAND_IN)
    with running(Recipe("leaves", ("{python}", str(tmp_path / "leaves.py"), "ours"), {})):
        started = psutil.Process().children(recursive=True)
        (left,) = [one for one in started if child in one.cmdline()]
    assert not left.is_running()


def bare(**rates):
    return {"precision": "int8", "images_per_s": rates, "single_ms": 9}


def test_later_rounds_measure_the_best_shapes_of_the_bare_loop():
    first = bare(a=1, b=3, c=2)
    assert best_shapes([]) == []
    assert best_shapes([first]) == ["b", "c"]
    assert best_bare({"bare": [first, bare(b=3, c=5), bare(b=3, c=6)]}) == {"int8": ("c", 5, 9)}


def test_circumstances_name_the_machine_and_the_versions():
    found = circumstances()
    assert re.fullmatch(r"\d+ × .+", found["machine"])
    assert {"torch", "onnxruntime"} <= set(found["versions"])


def test_every_request_of_a_short_soak_has_one_outcome():
    """Memory may grow here: caches fill in the first minutes."""
    options = ["--minutes", "0.1", "--max-growth", "1"]
    command = [sys.executable, "-m", "tools.soak", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = re.findall(r"^all +(.*)$", done.stdout, re.MULTILINE)
    sent, *outcomes = (int(number.replace(",", "")) for number in row.split())
    assert sent == sum(outcomes) > 100
    assert outcomes[-2:] == [0, 0]  # wrong, no answer
    kinds = re.findall(r"^(\w.*?) {2,}\d", done.stdout, re.MULTILINE)
    assert {"reads slowly", "dribbles", "greedy"} <= set(kinds)


def test_the_balance_names_every_fault():
    ledger, before = Ledger(), Usage(pss_mb=100.0, own_mb=50.0, threads=10, descriptors=5)
    after = Usage(pss_mb=110.0, own_mb=60.0, threads=11, descriptors=5)
    counted = Counter({"internal-error": 1, "overloaded": 2})
    assert Balance(ledger, counted, before, before, before, 100.0).complaints(max_growth=0.02) == []
    ledger.sent["good"], ledger.outcomes["good", "server closed"] = 2, 1
    ledger.wrong.append("good: a tench")
    ledger.reasons.update({"200": 9, "400": 1, "500 internal-error": 1, "503 overloaded": 3})
    assert Balance(ledger, counted, before, before, after, 110.0).complaints(max_growth=0.02) == [
        "2 requests were sent, but 1 have an outcome.",
        "1 answers were wrong.",
        "The server answered 500 internal-error.",
        "The server closed connections without a cause: good.",
        "Memory grew by 10.0%.",
        "Threads or descriptors leaked.",
        "overloaded: 1 more than the server counted.",
    ]
