"""schemathesis reads /openapi.json and tests whether the server does what it says."""

import os
import re
import subprocess

import pytest
import requests

from clients.answers import PROGRAMS, PYTHON
from running_server import ROOT, ToyServer

SCHEMATHESIS = PYTHON.with_name("schemathesis")
TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def document():
    """URL of the document, on a server with tokens, a rate limit, a short queue and a toy model."""
    settings = {"tokens": TOKEN, "rate_limit": "100000/second", "max_queue": 4}
    running = ToyServer(environ={"FAULTLESS": "1"}, **settings)
    yield f"{running.wait_until_ready().url}/openapi.json"
    running.close()


@pytest.mark.timeout(900)
@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="schemathesis is not installed")
def test_schemathesis_finds_no_contradiction(document):
    # It does not resolve the document's relative server.
    options = ["--config-file", PROGRAMS / "schemathesis.toml"]
    url = document.removesuffix("/openapi.json")
    done = subprocess.run(
        [SCHEMATHESIS, *options, "run", "--url", url, document],
        cwd=ROOT, env=os.environ | {"TOKEN": TOKEN}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    asked = int(re.search(r"Tested: +(\d+)", done.stdout)[1])
    assert asked == count_operations(document) - 1, (
        done.stdout
    )  # without the operation that it read the document from


def count_operations(document):
    response = requests.get(document, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)
    return sum(len(item.keys() - {"parameters"}) for item in response.json()["paths"].values())
