"""Helpers to run other projects' clients, and the answers that they should get."""

import base64
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from running_server import ROOT

MODEL = "efficientnet_lite0"
ESPRESSO, CATS = 967, {281, 282, 285}  # tabby, tiger cat, Egyptian cat
PROGRAMS = Path(__file__).parent / "programs"
CLIENTS = ROOT / os.environ.get("CLIENTS", ".venv-clients")
PYTHON = CLIENTS / "bin" / "python"
NODE_MODULES = CLIENTS / "node_modules"
# C1 and one thread to collect garbage halve the processor time that Java takes to start.
JAVA = ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


def run(program, url, *arguments):
    """Run one of the programs; return the JSON that it prints."""
    (path,) = PROGRAMS.glob(f"{program}.*")
    command = [*interpreter(path.suffix), path, url, *arguments]
    environment = os.environ | {"NODE_PATH": str(NODE_MODULES)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def interpreter(suffix):
    """The start of the command for programs of this kind. Skip the test if it is not installed."""
    if suffix == ".py":
        return [need(PYTHON.exists() and PYTHON, "the Python clients", "make test installs them")]
    if suffix == ".java":
        need(shutil.which("javac"), "a JDK", "Debian: apt-get install default-jdk-headless")
        return JAVA
    node = need(shutil.which("node"), "Node.js", "Debian: apt-get install nodejs npm")
    need_npm_packages()
    return [node]


def need_npm_packages():
    need(NODE_MODULES.exists(), "the npm packages", "make test installs them if it finds npm")


def need(found, what, how):
    """Return what was found, or skip the test."""
    return found or pytest.skip(f"this machine lacks {what} ({how})")


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
