"""The benchmark runs; what it measures is no matter for a test."""

import json
import subprocess
import sys

from server import ROOT


def test_a_short_run_ends_with_figures_and_a_plot(tmp_path):
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
    assert "times the best textbook's" in done.stdout
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
