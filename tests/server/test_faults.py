"""What breaks while a real gunicorn serves: all are answered, and none with another's class."""

import os
import re
import signal
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import pytest
import requests
from PIL import Image

from faulty import DIES, HANGS, NO_MEMORY, RAISES
from pictures import COLOURS, encode, picture
from running_server import ROOT, Server
from waiting import wait_until


@pytest.fixture
def start():
    started = []

    def run(*options, **settings):
        server = Server("--pythonpath", "tests", *options, app="faulty:app", **settings)
        started.append(server)
        return server.wait_until_ready()

    yield run
    for one in started:
        one.close()


def one_colour(colour):
    return encode(Image.new("RGB", (16, 16), colour))


class Load:
    """Clients that ask for red, green and blue in turn until told to stop; counts every answer."""

    def __init__(self, server, clients=6):
        self.tally, self._server, self._ended = Counter(), server, False
        self._pool = ThreadPoolExecutor(clients)
        self._clients = [self._pool.submit(self._ask, number) for number in range(clients)]

    def _ask(self, number):
        while not self._ended:
            colour = list(COLOURS)[number % 3]
            try:
                response = requests.post(f"{self._server.url}/predict", picture(colour), timeout=60)
            except requests.ConnectionError:
                self.tally["broken off"] += 1
                continue
            body = response.json()
            right = body.get("class_name") == f"{colour}_thing"
            self.tally["right" if right else body.get("code", "wrong")] += 1

    def __enter__(self):
        wait_until(lambda: self.tally["right"] > 5)
        return self

    def __exit__(self, *_):
        before = self.tally["right"]
        wait_until(lambda: self.tally["right"] > before + 5)  # the service goes on
        self._ended = True
        for client in self._clients:
            client.result(timeout=60)
        self._pool.shutdown()


def ask(server, colour):
    return requests.post(f"{server.url}/predict", one_colour(colour), timeout=60)


@pytest.mark.parametrize(
    ("colour", "status", "code"),
    [(RAISES, 500, "inference-failed"), (NO_MEMORY, 503, "out-of-memory")],
)
def test_one_image_that_fails_is_answered_and_its_neighbours_are_not_harmed(
    start, colour, status, code
):
    server = start()
    with Load(server) as load:
        for _ in range(5):
            response = ask(server, colour)
            assert (response.status_code, response.json()["code"]) == (status, code)
    assert set(load.tally) == {"right"}
    assert ("Retry-After" in response.headers) is (status == 503)


def test_a_process_whose_inference_thread_has_died_is_replaced(start):
    server = start()
    first = server.worker
    with Load(server) as load:
        assert ask(server, DIES).json()["code"] == "inference-failed"
        wait_until(lambda: server.worker != first)
    assert set(load.tally) <= {"right", "inference-failed", "not-ready", "broken off"}
    assert "An inference thread has ended." in server.log


def test_a_process_whose_model_hangs_is_replaced_and_nobody_hangs_with_it(start):
    server = start(hang_timeout_s=1, request_timeout_s=50)
    first, begun = server.worker, monotonic()
    with Load(server) as load:
        response = ask(server, HANGS)
        assert response.json()["code"] == "inference-failed"
        assert monotonic() - begun < 30
        wait_until(lambda: server.worker != first)
    assert set(load.tally) <= {"right", "inference-failed", "not-ready", "broken off"}
    assert re.search("This process is replaced. A batch has been running for", server.log)


def test_a_killed_process_takes_only_what_it_had(start):
    server = start("--workers", "2")
    with Load(server) as load:
        os.kill(server.worker, signal.SIGKILL)
        wait_until(lambda: server.log.count("Booting worker") == 3)
    assert set(load.tally) <= {"right", "not-ready", "broken off"}
    assert load.tally["broken off"] <= 6  # what was in work


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_reload_refuses_nobody_and_loses_no_request(start, workers):
    server = start("--workers", workers)
    wait_until(lambda: server.log.count("Ready at") == int(workers))
    with Load(server) as load:
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: server.log.count("Ready at") == 2 * int(workers))
    assert set(load.tally) == {"right"}


def test_a_reload_that_fails_leaves_the_old_processes_in_service(tmp_path):
    """First for its weights, then for its tokens; then all is well, and the new ones serve."""
    from torch import save
    from torchvision.models import squeezenet1_1

    weights, tokens, good = (tmp_path / name for name in ("weights.pth", "tokens", "good.pth"))
    save(squeezenet1_1().state_dict(), good)
    weights.write_bytes(good.read_bytes())
    tokens.write_text("a-token-of-sixteen-characters\n")
    options = {"model": "squeezenet1_1", "weights": weights, "tokens_file": tokens}
    # gunicorn waits for the old processes as long as a request may take, and no longer.
    server = Server("--workers", "2", request_timeout_s=10, **options)

    def serves():
        header = {"Authorization": "Bearer a-token-of-sixteen-characters"}
        answer = requests.post(f"{server.url}/predict", picture("red"), headers=header, timeout=60)
        return answer.status_code == 200

    def replace_weights(content):
        weights.with_suffix(".new").write_bytes(content)
        weights.with_suffix(".new").replace(weights)

    try:
        wait_until(lambda: server.log.count("Ready at") == 2)
        replace_weights(b"cut off")
        server.process.send_signal(signal.SIGHUP)
        failed = "The reload failed; this process serves on."
        wait_until(lambda: serves() and server.log.count(failed) == 2)
        replace_weights(good.read_bytes())

        tokens.write_text("")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "Not reloaded. PREDICTOR_TOKENS_FILE" in server.log)
        assert serves()
        tokens.write_text("a-token-of-sixteen-characters\n")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: serves() and server.log.count("Ready at") == 4)
        assert server.stop() == 0
    finally:
        server.close()


def test_a_drained_process_says_that_it_is_not_ready_and_finishes_its_work(start):
    server = start()
    kept = requests.Session()
    assert kept.get(f"{server.url}/readyz").status_code == 200
    with ThreadPoolExecutor(40) as clients:
        asked = [clients.submit(server.predict, picture("blue")) for _ in range(40)]
        wait_until(lambda: busy(server) >= 10)
        server.process.terminate()
        wait_until(lambda: "Handling signal: term" in server.log)
        response = kept.get(f"{server.url}/readyz", timeout=30)
        assert (response.status_code, response.json()["code"]) == (503, "not-ready")
        assert {a.result().json()["class_name"] for a in asked} == {"blue_thing"}
    assert server.process.wait(timeout=60) == 0


def busy(server):
    found = re.search(r"^predictor_in_flight\S* (\S+)", server.get("/metrics").text, re.MULTILINE)
    return float(found[1])


def test_who_is_refused_is_told_at_once_when_to_come_again(start):
    """Ten images a second; eight places."""
    server = start(max_in_flight=8)
    with ThreadPoolExecutor(40) as clients:
        found = list(clients.map(lambda _: server.predict(picture("red")), range(80)))
    refused = [response for response in found if response.status_code == 503]
    assert {r.json()["class_name"] for r in found if r.ok} == {"red_thing"}
    assert {r.json()["code"] for r in refused} == {"overloaded"}
    assert refused
    waits = {int(r.headers["Retry-After"]) for r in refused}
    assert waits <= {1, 2}  # eight at ten a second, and never nothing


def test_what_would_come_too_late_is_not_begun(start):
    """A second's work may wait; thirty come at once."""
    server = start(request_timeout_s=1, max_in_flight=64)
    assert server.predict(picture("green")).ok  # it knows how long one takes
    with ThreadPoolExecutor(30) as clients:
        found = list(clients.map(lambda _: server.predict(picture("green")), range(30)))
    codes = Counter(r.json().get("code", "right") for r in found)
    assert codes["right"] >= 4
    assert codes["overloaded"] > codes["deadline-exceeded"]
    assert all(r.elapsed.total_seconds() < 20 for r in found)


def test_a_client_that_hangs_up_frees_its_place(start):
    server = start(max_in_flight=2, request_timeout_s=40)
    with ThreadPoolExecutor(1) as clients:
        stuck = clients.submit(ask, server, HANGS)
        wait_until(lambda: busy(server) == 1)
        port = int(server.url.rpartition(":")[2])
        photo = picture("red")
        with socket.create_connection(("127.0.0.1", port)) as gone:
            head = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(photo)}\r\n\r\n"
            gone.sendall(head.encode() + photo)
            wait_until(lambda: busy(server) == 2)
        wait_until(lambda: busy(server) == 1)
        wait_until(lambda: 'reason="client-gone"} 1.0' in server.get("/metrics").text)
        os.kill(server.worker, signal.SIGKILL)
        with pytest.raises(requests.ConnectionError):
            stuck.result()
    wait_until(lambda: server.log.count("Ready at") == 2)  # a worker being forked hears no SIGTERM


def test_probes_are_answered_while_the_model_computes_and_every_place_is_taken(start):
    server = start(max_in_flight=2)
    with ThreadPoolExecutor(2) as clients:
        stuck = [clients.submit(ask, server, HANGS) for _ in range(2)]
        wait_until(lambda: busy(server) == 2)
        assert server.predict(picture("red")).status_code == 503
        assert [server.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
        os.kill(server.worker, signal.SIGKILL)
        for one in stuck:
            with pytest.raises(requests.ConnectionError):
                one.result()


def test_work_that_takes_longer_than_gunicorns_timeout_is_finished(start):
    """A hundred images take five seconds."""
    server = start("--timeout", "3", max_queue=100)
    first = server.worker
    photos = [("file", picture("green"))] * 100
    response = requests.post(f"{server.url}/predict", files=photos, timeout=60)
    assert response.elapsed.total_seconds() > 3
    assert [result["class_name"] for result in response.json()["results"]] == ["green_thing"] * 100
    assert server.worker == first
    assert "WORKER TIMEOUT" not in server.log


def test_weights_that_vanish_are_served_on_and_missed_at_the_next_start(tmp_path):
    from torch import save
    from torchvision.models import squeezenet1_1

    path = tmp_path / "weights.pth"
    save(squeezenet1_1(num_classes=1000).state_dict(), path)
    server = Server(model="squeezenet1_1", weights=path).wait_until_ready()
    try:
        path.unlink()
        assert server.predict(picture("red")).ok
        os.kill(server.worker, signal.SIGKILL)
        assert server.process.wait(timeout=60) != 0
        assert f"PREDICTOR_WEIGHTS='{path}' is not a file." in server.log
    finally:
        server.close()


def test_no_step_reads_a_clock_that_can_jump():
    """But for the rate limit's, whose library counts in the wall clock's windows."""
    sources = {*(ROOT / "predictor").rglob("*.py"), ROOT / "receiving.py"}
    sources.remove(ROOT / "predictor" / "web" / "security.py")
    jumping = re.compile(r"\btime\.time\(|\bfrom time import .*\btime\b|datetime\.now|utcnow")
    assert [p.name for p in sources if jumping.search(Path(p).read_text())] == []
