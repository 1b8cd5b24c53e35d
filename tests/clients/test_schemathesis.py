"""schemathesis reads /openapi.json, and asks what follows from it."""

import os
import re
import subprocess

import pytest
import requests

from clients.answers import MODEL, PROGRAMS, PYTHON
from running_server import ROOT, Server

SCHEMATHESIS = PYTHON.with_name("schemathesis")
TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def document():
    """The document's address on a server with all guards, and where lists are soon too long."""
    running = Server(model=MODEL, tokens=TOKEN, rate_limit="100000/second", max_queue=4)
    yield f"{running.wait_until_ready().url}/openapi.json"
    running.close()


@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="schemathesis is not installed")
def test_schemathesis_finds_no_contradiction(document):
    done = subprocess.run(
        [SCHEMATHESIS, "--config-file", PROGRAMS / "schemathesis.toml", "run", document],
        cwd=ROOT, env=os.environ | {"TOKEN": TOKEN}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    asked = int(re.search(r"Tested: +(\d+)", done.stdout)[1])
    assert asked == count_operations(document) - 1, done.stdout  # it has the document already


def count_operations(document):
    response = requests.get(document, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)
    return sum(len(item.keys() - {"parameters"}) for item in response.json()["paths"].values())
