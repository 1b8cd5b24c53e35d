"""gunicorn's ``--max-requests``: a worker is replaced, and no request is refused or lost."""

import pytest
import requests

from load import Load
from pictures import picture
from waiting import wait_until


@pytest.mark.parametrize("workers", ["1", "2"])
def test_worn_workers_are_replaced_without_losing_a_request(start_faulty, workers):
    server = start_faulty("--workers", workers, "--max-requests", "30")
    wait_until(lambda: server.loaded == int(workers))
    with Load(server) as load:
        wait_until(lambda: server.loaded >= 2 * int(workers) + 1)
    assert set(load.tally) == {"right"}
    assert server.stop() == 0


def test_worker_serves_on_if_its_replacement_fails(start, net):
    server = start("--max-requests", "3", model=net)
    server.wait_until_ready()
    good = net.read_bytes()
    net.rename(net.with_suffix(".old"))
    net.write_bytes(b"truncated")
    failed = "The replacement failed. This process continues to serve."

    def predict():
        return requests.post(f"{server.url}/predict", picture("red"), timeout=60).status_code

    wait_until(lambda: predict() == 200 and failed in server.log)
    net.unlink()
    net.write_bytes(good)
    wait_until(lambda: predict() == 200 and server.loaded == 2)
    assert server.stop() == 0
