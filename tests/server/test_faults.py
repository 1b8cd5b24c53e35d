"""A real gunicorn with faults: every client gets an answer, and never another client's class."""

import os
import re
import signal
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import pytest
import requests
from PIL import Image

from faulty import DIES, HANGS, NO_MEMORY, RAISES
from load import Load
from paths import ROOT
from pictures import encode, picture
from waiting import wait_until

TOKEN = "correct-horse-battery"
OTHER = "staple.0123456789=="
WHILE_A_PROCESS_IS_REPLACED = {"right", "inference-failed", "not-ready", "broken off"}


def ask(server, colour):
    photo = encode(Image.new("RGB", (16, 16), colour))
    return requests.post(f"{server.url}/predict", photo, timeout=60)


def in_progress(server):
    found = re.search(r"^predictor_in_flight\S* (\S+)", server.get("/metrics").text, re.MULTILINE)
    return float(found[1])


# The model fails


@pytest.mark.parametrize(
    ("colour", "status", "code"),
    [(RAISES, 500, "inference-failed"), (NO_MEMORY, 503, "out-of-memory")],
)
def test_an_image_that_fails_does_not_harm_its_batch(start_faulty, colour, status, code):
    server = start_faulty()
    with Load(server) as load:
        for _ in range(5):
            response = ask(server, colour)
            assert (response.status_code, response.json()["code"]) == (status, code)
    assert set(load.tally) == {"right"}
    assert ("Retry-After" in response.headers) is (status == 503)


def test_a_process_whose_inference_thread_ended_is_replaced(start_faulty):
    server = start_faulty()
    first = server.worker
    with Load(server) as load:
        assert ask(server, DIES).json()["code"] == "inference-failed"
        wait_until(lambda: server.worker != first)
    assert set(load.tally) <= WHILE_A_PROCESS_IS_REPLACED
    assert "An inference thread has ended." in server.log


def test_a_process_whose_model_hangs_is_replaced(start_faulty, monkeypatch):
    """All clients get an answer long before the model would: it hangs for an hour."""
    monkeypatch.setenv("FAULTY_HANG_S", "1")
    server = start_faulty(request_timeout_s=1)
    first, began = server.worker, monotonic()
    with Load(server) as load:
        assert ask(server, HANGS).json()["code"] == "deadline-exceeded"
        wait_until(lambda: server.worker != first)
        assert monotonic() - began < 30
    late = {"deadline-exceeded", "overloaded"}
    assert set(load.tally) <= WHILE_A_PROCESS_IS_REPLACED | late
    assert re.search("Reason: A batch has been running for [45] s.", server.log)


# A process ends


def test_a_killed_process_loses_only_its_requests_in_progress(start_faulty):
    server = start_faulty("--workers", "2")
    wait_until(lambda: server.loaded == 2)
    with Load(server) as load:
        os.kill(server.worker, signal.SIGKILL)
        wait_until(lambda: len(server.workers) == 3)
    # Its replacement accepts no connections while it loads, because the other one is ready.
    assert set(load.tally) <= {"right", "broken off"}
    assert load.tally["broken off"] <= 6  # one for each client


def test_a_broken_tokens_file_does_not_reach_a_respawned_worker(start_toy, tmp_path):
    """It gets the tokens that the master has followed, and not one that was replaced since."""
    tokens = tmp_path / "tokens"
    tokens.write_text(OTHER)
    server = start_toy("--workers", "2", tokens_file=tokens)
    wait_until(lambda: server.loaded == 2)
    tokens.write_text(TOKEN)
    followed = f"The tokens file '{tokens}' has changed. Valid tokens in it: 1"
    wait_until(lambda: server.log.count(followed) == 3)  # with the master
    tokens.write_text("broken")
    old, killed = server.workers
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: server.loaded == 3)
    for stopped in (old, server.worker):  # so that the other one answers
        os.kill(stopped, signal.SIGSTOP)
        assert [predict(server, t) for t in (TOKEN, OTHER, "broken")] == [200, 401, 401]
        os.kill(stopped, signal.SIGCONT)


def predict(server, token):
    """The status of a prediction."""
    header = {"Authorization": f"Bearer {token}"}
    url, photo = f"{server.url}/predict", picture("red")
    return requests.post(url, photo, headers=header, timeout=60).status_code


def test_weights_that_vanish_are_missed_at_the_next_start_only(start, squeezenet):
    server = start(model="squeezenet1_1", weights=squeezenet).wait_until_ready()
    squeezenet.unlink()
    assert server.predict(picture("red")).ok
    os.kill(server.worker, signal.SIGKILL)
    assert server.process.wait(timeout=60) != 0
    assert f"PREDICTOR_WEIGHTS is '{squeezenet}', which does not exist." in server.log


# A reload


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_reload_loses_no_request(start_faulty, workers):
    server = start_faulty("--workers", workers)
    wait_until(lambda: server.loaded == int(workers))
    with Load(server) as load:
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: server.loaded == 2 * int(workers))
    assert set(load.tally) == {"right"}


def test_after_a_failed_reload_the_old_processes_serve(start, net, tmp_path):
    """It fails first because of the model, then because of the tokens; the third succeeds."""
    tokens, good = tmp_path / "tokens", net.read_bytes()
    tokens.write_text(TOKEN)
    server = start("--workers", "2", tokens_file=tokens, model=net)
    wait_until(lambda: server.loaded == 2)

    def replace_model(content):
        new = net.with_suffix(".new")
        new.write_bytes(content)
        new.replace(net)

    def serves():
        return predict(server, TOKEN) == 200

    replace_model(b"truncated")
    server.process.send_signal(signal.SIGHUP)
    failed = "The replacement failed. This process continues to serve."
    wait_until(lambda: serves() and server.log.count(failed) == 2)
    replace_model(good)

    tokens.write_text("")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "Not reloaded. PREDICTOR_TOKENS_FILE" in server.log)
    assert serves()

    tokens.write_text(TOKEN)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: serves() and server.loaded == 4)
    assert server.stop() == 0


def test_a_draining_process_finishes_its_requests(start_faulty):
    server = start_faulty()
    kept = requests.Session()
    assert kept.get(f"{server.url}/readyz").status_code == 200
    with ThreadPoolExecutor(40) as clients:
        asked = [clients.submit(server.predict, picture("blue")) for _ in range(40)]
        wait_until(lambda: in_progress(server) >= 10)
        server.process.terminate()
        wait_until(lambda: "Handling signal: term" in server.log)
        response = kept.get(f"{server.url}/readyz", timeout=30)
        assert (response.status_code, response.json()["code"]) == (503, "not-ready")
        assert {a.result().json()["class_name"] for a in asked} == {"blue_thing"}
    assert server.process.wait(timeout=60) == 0


def test_sigterm_answers_every_connection_that_was_accepted_or_queued(start_faulty):
    """Fifty clients connect and ask just before the signal; none of them gets a reset."""
    server = start_faulty()
    photo = picture("red")
    head = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(photo)}\r\n\r\n"
    with ExitStack() as stack:
        asked = []
        for _ in range(50):
            asked.append(stack.enter_context(socket.create_connection(server.address, 60)))
            asked[-1].sendall(head.encode() + photo)
        server.process.terminate()
        answers = [connection.recv(5000) for connection in asked]
    assert {answer[:13] for answer in answers} == {b"HTTP/1.1 200 "}
    assert server.process.wait(timeout=60) == 0


# Too many requests


def test_a_client_over_the_limit_gets_503_and_a_retry_after(start_faulty):
    """Eight slots, and ten images per second."""
    server = start_faulty(max_in_flight=8)
    with ThreadPoolExecutor(40) as clients:
        found = list(clients.map(lambda _: server.predict(picture("red")), range(80)))
    refused = [response for response in found if response.status_code == 503]
    assert {r.json()["class_name"] for r in found if r.ok} == {"red_thing"}
    assert {r.json()["code"] for r in refused} == {"overloaded"}
    assert refused
    assert {int(r.headers["Retry-After"]) for r in refused} <= {1, 2}  # eight slots, ten a second


def test_a_client_over_the_limit_is_refused_before_it_sends_the_photo(start_faulty):
    server = start_faulty(max_in_flight=1)
    with ThreadPoolExecutor(1) as clients:
        stuck = clients.submit(ask, server, HANGS)
        wait_until(lambda: in_progress(server) == 1)
        with socket.create_connection(server.address, 60) as connection:
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n"
            )
            assert connection.recv(5000).startswith(b"HTTP/1.1 503 ")
        os.kill(server.worker, signal.SIGKILL)
        with pytest.raises(requests.ConnectionError):
            stuck.result()
    wait_until(lambda: server.loaded == 2)


def test_a_request_that_would_miss_its_deadline_is_not_queued(start_faulty):
    """Thirty requests with a deadline of one second, and ten images per second."""
    server = start_faulty(request_timeout_s=1, max_in_flight=64)
    assert server.predict(picture("green")).ok  # now the server knows how long one image takes
    with ThreadPoolExecutor(30) as clients:
        found = list(clients.map(lambda _: server.predict(picture("green")), range(30)))
    codes = Counter(r.json().get("code", "right") for r in found)
    assert codes["right"]
    assert codes["overloaded"] > codes["deadline-exceeded"]
    assert all(r.elapsed.total_seconds() < 20 for r in found)


def test_a_client_that_disconnects_frees_its_slot(start_faulty):
    server = start_faulty(max_in_flight=2, request_timeout_s=40)
    with ThreadPoolExecutor(1) as clients:
        stuck = clients.submit(ask, server, HANGS)
        wait_until(lambda: in_progress(server) == 1)
        photo = encode(Image.new("RGB", (16, 16), HANGS))  # another may overtake the first one
        with socket.create_connection(server.address) as leaving:
            head = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(photo)}\r\n\r\n"
            leaving.sendall(head.encode() + photo)
            wait_until(lambda: in_progress(server) == 2)
        wait_until(lambda: in_progress(server) == 1)
        left = re.compile('reason="client-gone",version="1"} 1.0')
        wait_until(lambda: left.search(server.get("/metrics").text))
        os.kill(server.worker, signal.SIGKILL)
        with pytest.raises(requests.ConnectionError):
            stuck.result()
    wait_until(lambda: server.loaded == 2)  # SIGTERM would not reach a worker before that


def test_probes_are_answered_while_all_slots_are_held(start_faulty):
    server = start_faulty(max_in_flight=2)
    with ThreadPoolExecutor(2) as clients:
        stuck = [clients.submit(ask, server, HANGS) for _ in range(2)]
        wait_until(lambda: in_progress(server) == 2)
        assert server.predict(picture("red")).status_code == 503
        assert [server.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
        os.kill(server.worker, signal.SIGKILL)
        for request in stuck:
            with pytest.raises(requests.ConnectionError):
                request.result()


def test_a_request_may_take_longer_than_gunicorns_timeout(start_faulty):
    """A hundred images take five seconds."""
    server = start_faulty("--timeout", "3", max_queue=100)
    first = server.worker
    photos = [("file", picture("green"))] * 100
    response = requests.post(f"{server.url}/predict", files=photos, timeout=60)
    assert response.elapsed.total_seconds() > 3
    assert [result["class_name"] for result in response.json()["results"]] == ["green_thing"] * 100
    assert server.worker == first
    assert "WORKER TIMEOUT" not in server.log


def test_no_module_reads_a_clock_that_can_jump():
    """Except for the rate limit's library, which counts in windows of the wall clock."""
    sources = {*(ROOT / "predictor").rglob("*.py")}
    sources.remove(ROOT / "predictor" / "web" / "security.py")
    jumping = re.compile(r"\btime\.time\(|\bfrom time import .*\btime\b|datetime\.now|utcnow")
    assert [p.name for p in sources if jumping.search(Path(p).read_text())] == []
