"""Run the benchmark: ``python -m benchmarks`` (see ``--help``)."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from skimage import data

from benchmarks.report import plot, show
from benchmarks.servers import ROOT, Recipe, Server, running

Row = dict[str, float]
PHOTOS = ("astronaut", "cat", "coffee", "rocket", "camera", "immunohistochemistry")
# The limit of requests in progress, and of the queue. The clients below stay under it. A load of
# 150 % fills the queue in a few seconds.
SLOTS = 40
OUR_LIMITS = {"PREDICTOR_MAX_IN_FLIGHT": str(SLOTS), "PREDICTOR_MAX_QUEUE": str(SLOTS)}


def main() -> None:
    """Measure all servers in turns, print a table, and write a JSON file and a plot."""
    options = _parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = _measure(options, Path(folder))
    show(report)
    options.output.mkdir(exist_ok=True)
    (options.output / "bench.json").write_text(json.dumps(report, indent=1))
    plot(report, options.output / "bench.png")
    print(f"\nWritten: {options.output}/bench.json and bench.png")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--model", default="vgg16", help="torchvision model (default: vgg16)")
    parser.add_argument("--precision", default="auto", help="precision of this app (default: auto)")
    parser.add_argument("--seconds", type=float, default=15, help="seconds of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="how often to measure every server")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--loads", type=float, nargs="*", default=[0.5, 0.9, 1.5],
                        help="open-loop loads, as fractions of this app's capacity")  # fmt: skip
    parser.add_argument("--output", type=Path, default=ROOT / "benchmark-results")
    return parser


def _measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    weights = _write_weights(options.model, folder / "weights.pth")
    small = _write_photos(folder / "small", 500 * 375)
    large = _write_photos(folder / "large", 12_000_000)
    rows: dict[str, list[Row]] = defaultdict(list)
    bare: list[dict[str, Any]] = []
    starts: dict[str, list[float]] = defaultdict(list)
    served: dict[str, str] = {}
    for turn in range(options.rounds):
        for recipe in _recipes(options.model, weights, options.precision):
            if recipe.name == "this app float32" and served["this app"] == "float32":
                continue  # `auto` has already chosen float32
            print(f"round {turn + 1}: {recipe.name}", file=sys.stderr)
            ours = recipe.name.startswith("this app")
            with running(recipe) as (server, start_s):
                starts[recipe.name].append(start_s)
                if ours:  # measure just before the app, at the same speed of the machine
                    served[recipe.name] = _precision(server)
                    seconds = options.seconds / 4
                    bare.append(_bare(options.model, weights, served[recipe.name], seconds))
                for clients in options.clients:
                    name = f"{recipe.name}, {clients} clients"
                    rows[name].append(_load(server, small, options.seconds, "closed", clients))
                if not ours:
                    continue
                capacity = rows[name][-1]["images_per_s"]
                rows[f"{recipe.name}, 8 clients, 12 MP"].append(
                    _load(server, large, options.seconds, "closed", 8)
                )
                for load in options.loads:
                    name = f"{recipe.name}, open loop at {load:.0%}"
                    fill_s = SLOTS / capacity / (load - 1) if load > 1 else 0
                    seconds = options.seconds + fill_s
                    rows[name].append(_load(server, small, seconds, "open", load * capacity))
    found = {"start_s": starts, "precision": served, "rows": rows, "bare": bare}
    return {"model": options.model, **found}


def _recipes(model: str, weights: Path, precision: str) -> list[Recipe]:
    gunicorn = ("{python}", "-m", "gunicorn")
    textbook = (*gunicorn, "-c", "/dev/null", "-b", "127.0.0.1:{port}", "benchmarks.textbook:app")
    their_env = {"BENCH_MODEL": model, "BENCH_WEIGHTS": str(weights)}
    our_env = {**OUR_LIMITS, "PREDICTOR_MODEL": model, "PREDICTOR_WEIGHTS": str(weights)}
    ours = (*gunicorn, "wsgi:app")
    recipes = [Recipe("this app", ours, {**our_env, "PREDICTOR_PRECISION": precision})]
    if precision == "auto":
        float32 = {**our_env, "PREDICTOR_PRECISION": "float32"}
        recipes.append(Recipe("this app float32", ours, float32))
    return [
        *recipes,
        Recipe("textbook", textbook, their_env),
        Recipe("textbook, 8 threads", (*textbook, "--threads", "8"), their_env),
        Recipe("textbook, -w 2", (*textbook, "-w", "2"), {**their_env, "OMP_NUM_THREADS": "1"}),
    ]


def _write_weights(model: str, path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(torchvision.models.get_model(model).state_dict(), path)
    return path


def _write_photos(folder: Path, pixels: int) -> Path:
    """Write public-domain photographs as JPEGs of about ``pixels`` pixels each."""
    folder.mkdir()
    for name in PHOTOS:
        photo = _photo(name)
        scale = (pixels / (photo.width * photo.height)) ** 0.5
        size = round(photo.width * scale), round(photo.height * scale)
        photo.resize(size).save(folder / f"{name}.jpg", quality=90)
    return folder


def _photo(name: str) -> Image.Image:
    return Image.fromarray(getattr(data, name)()).convert("RGB")


def _load(server: Server, photos: Path, seconds: float, kind: str, amount: float) -> Row:
    command = [sys.executable, "-m", "benchmarks.load", "127.0.0.1", str(server.port), str(photos)]
    with server.peak_pss_mb() as memory:
        before = server.cpu_s()
        tail = [str(seconds), kind, str(amount)]
        done = subprocess.run([*command, *tail], cwd=ROOT, stdout=subprocess.PIPE, check=True)
        used = server.cpu_s() - before
    tally = json.loads(done.stdout)
    answered, refused = tally["answered"], tally["refused"]
    asked = len(answered) + len(refused)
    p50, p95, p99 = np.percentile(answered or [np.nan], [50, 95, 99]) * 1000
    return {
        "images_per_s": len(answered) / tally["seconds"],
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "refused": len(refused),
        "refused_p99_ms": float(np.percentile(refused, 99)) * 1000 if refused else 0.0,
        "peak_pss_mb": max(memory),
        "cpu_ms_per_image": used / max(1, len(answered)) * 1000,
        "generator_cpu_ms_per_request": tally["generator_cpu_s"] / max(1, asked) * 1000,
    }


def _precision(server: Server) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/readyz") as response:
        return str(json.load(response)["model"]["precision"])


def _bare(model: str, weights: Path, precision: str, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.bare", model, str(weights), precision]
    done = subprocess.run([*command, str(seconds)], cwd=ROOT, capture_output=True, check=True)
    return {"precision": precision, **json.loads(done.stdout)}


if __name__ == "__main__":
    main()
