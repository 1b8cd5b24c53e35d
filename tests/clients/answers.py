"""Helpers to run clients of other servers, and the answers that they should get."""

import base64
import json
import os
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

from running_server import ROOT

MODEL = "efficientnet_lite0"
ESPRESSO, CATS = 967, {281, 282, 285}  # tabby, tiger cat, Egyptian cat
PROGRAMS = Path(__file__).parent / "programs"
PYTHON = ROOT / os.environ.get("CLIENTS", ".venv-clients") / "bin" / "python"


def run(program, url, *arguments):
    """Run one of the programs; return the JSON that it prints."""
    if not PYTHON.exists():
        pytest.skip("the clients are not installed; make test does that")
    command = [PYTHON, PROGRAMS / f"{program}.py", url, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def approximately(predictions, key="class_index"):
    return pytest.approx({one[key]: one["probability"] for one in predictions}, abs=1e-3)


def best_five(logits):
    exponentials = np.exp(np.array(logits, np.float64))
    probabilities = exponentials / exponentials.sum()
    return {int(i): probabilities[i] for i in np.argsort(-probabilities)[:5]}


def curl(line, server, photos):
    """Run a line of TorchServe's manual with our host, port, model and photo; return its output."""
    for theirs, ours in {
        "http://localhost:8080": server.url,
        "http://localhost:8081": server.url,  # TorchServe's management port
        "http://127.0.0.1:8080": server.url,
        "http://127.0.0.1:8082": server.url,  # TorchServe's metrics port
        "densenet161": MODEL,
        "kitten_small.jpg": "coffee.png",
    }.items():
        line = line.replace(theirs, ours)
    command = [*shlex.split(line), "-sS"]
    done = subprocess.run(command, cwd=photos[0].parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_base64(photo):
    return base64.b64encode(photo.read_bytes()).decode()
