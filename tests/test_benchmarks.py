"""Short runs of the benchmark and of the soak; the tests do not judge the speed."""

import json
import re
import subprocess
import sys
from collections import Counter

from running_server import ROOT
from tools.soak import Balance, Usage
from tools.soak_clients import Ledger


def test_a_short_benchmark_writes_figures_and_a_plot(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--model", "squeezenet1_1", "--seconds", "0.5"]
    options = ["--rounds", "1", "--clients", "2", "--loads", "0.5", "--output", str(tmp_path)]
    done = subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "bench.json").read_text())
    assert all(turn["images_per_s"] > 0 for turns in report["rows"].values() for turn in turns)
    assert "textbook, -w 2, 2 clients" in report["rows"]
    assert "this app, 2 clients: p50 " in done.stdout
    assert "times the best textbook's rate" in done.stdout
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


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
