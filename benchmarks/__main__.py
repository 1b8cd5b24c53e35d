"""Run the benchmark: ``python -m benchmarks`` (see ``--help``)."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from skimage import data

from benchmarks.servers import ROOT, Recipe, Server, running

Row = dict[str, float]
PHOTOS = ("astronaut", "cat", "coffee", "rocket", "camera", "immunohistochemistry")
# The places in work and waiting: enough for the clients below, and 150 % must find them full.
OURS = {"PREDICTOR_MAX_IN_FLIGHT": "40", "PREDICTOR_MAX_QUEUE": "40"}


def main() -> None:
    """Measure in turns, print a table, and write JSON and a plot."""
    options = _parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = _measure(options, Path(folder))
    _print(report)
    options.output.mkdir(exist_ok=True)
    (options.output / "bench.json").write_text(json.dumps(report, indent=1))
    _plot(report, options.output / "bench.png")
    print(f"\nWritten: {options.output}/bench.json and bench.png")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--model", default="vgg16", help="torchvision model (default: vgg16)")
    parser.add_argument("--precision", default="auto", help="of our app (default: auto)")
    parser.add_argument("--seconds", type=float, default=15, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="how often all take their turn")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--loads", type=float, nargs="*", default=[0.5, 0.9, 1.5],
                        help="open-loop loads, as shares of our capacity")  # fmt: skip
    parser.add_argument("--output", type=Path, default=ROOT / "benchmark-results")
    return parser


def _measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    weights = _write_weights(options.model, folder / "weights.pth")
    small = _write_photos(folder / "small", 500 * 375)
    large = _write_photos(folder / "large", 12_000_000)
    rows: dict[str, list[Row]] = defaultdict(list)
    bare: list[dict[str, Any]] = []
    info: dict[str, Any] = {}
    for turn in range(options.rounds):
        for recipe in _recipes(options.model, weights, options.precision):
            print(f"round {turn + 1}: {recipe.name}", file=sys.stderr)
            with running(recipe) as (server, start_s):
                ours = recipe.name.startswith("this app")
                info[recipe.name] = {"start_s": start_s, **info.get(recipe.name, {})}
                for clients in options.clients:
                    name = f"{recipe.name}, {clients} clients"
                    rows[name].append(_load(server, small, options.seconds, "closed", clients))
                if ours:
                    info["precision"] = _precision(server)
                    rows[f"{recipe.name}, 8 clients, 12 MP"].append(
                        _load(server, large, options.seconds, "closed", 8)
                    )
                    capacity = rows[f"{recipe.name}, {options.clients[-1]} clients"][-1][
                        "images_per_s"
                    ]
                    for share in options.loads:
                        name = f"{recipe.name}, open loop at {share:.0%}"
                        row = _load(server, small, options.seconds, "open", share * capacity)
                        rows[name].append(row)
        precisions = {"float32", info["precision"]}
        bare += [_bare(options.model, weights, p, options.seconds / 4) for p in sorted(precisions)]
    return {"model": options.model, "info": info, "rows": dict(rows), "bare": bare}


def _recipes(model: str, weights: Path, precision: str) -> list[Recipe]:
    gunicorn = ("{python}", "-m", "gunicorn")
    textbook = (*gunicorn, "-c", "/dev/null", "-b", "127.0.0.1:{port}", "benchmarks.textbook:app")
    theirs = {"BENCH_MODEL": model, "BENCH_WEIGHTS": str(weights)}
    mine = {**OURS, "PREDICTOR_MODEL": model, "PREDICTOR_WEIGHTS": str(weights)}
    ours = (*gunicorn, "wsgi:app")
    recipes = [Recipe("this app", ours, {**mine, "PREDICTOR_PRECISION": precision})]
    if precision == "auto":
        recipes.append(Recipe("this app float32", ours, {**mine, "PREDICTOR_PRECISION": "float32"}))
    return [
        *recipes,
        Recipe("textbook", textbook, theirs),
        Recipe("textbook, 8 threads", (*textbook, "--threads", "8"), theirs),
        Recipe("textbook, -w 2", (*textbook, "-w", "2"), {**theirs, "OMP_NUM_THREADS": "1"}),
    ]


def _write_weights(model: str, path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(torchvision.models.get_model(model).state_dict(), path)
    return path


def _write_photos(folder: Path, pixels: int) -> Path:
    """Photographs in the public domain, as JPEGs of about as many pixels."""
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


def _print(report: dict[str, Any]) -> None:
    best = _best_bare(report)
    print(f"\n{report['model']} on {os.cpu_count()} processors, medians of the rounds\n")
    print(f"{'':44}images/s      p50      p95      p99 ms  refused  CPU ms  peak MB")
    for precision, (shape, rate, single) in best.items():
        print(f"{f'bare {precision}: {shape}':44}{rate:8.2f} {single:8.0f} (one image alone)")
    for name, turns in report["rows"].items():
        m = {key: median(turn[key] for turn in turns) for key in turns[0]}
        print(
            f"{name:44}{m['images_per_s']:8.2f} {m['p50_ms']:8.0f} {m['p95_ms']:8.0f}"
            f" {m['p99_ms']:8.0f}     {m['refused']:7.0f} {m['cpu_ms_per_image']:7.0f}"
            f" {m['peak_pss_mb']:8.0f}"
        )
    for name, particulars in report["info"].items():
        if isinstance(particulars, dict):
            print(f"{name}: {particulars['start_s']:.1f} s from start to the first 200")


def _best_bare(report: dict[str, Any]) -> dict[str, tuple[str, float, float]]:
    """For each precision the shape with the best median rate, that rate, and one image's ms."""
    best = {}
    for precision in {turn["precision"] for turn in report["bare"]}:
        turns = [turn for turn in report["bare"] if turn["precision"] == precision]
        rates = {s: median(t["images_per_s"][s] for t in turns) for s in turns[0]["images_per_s"]}
        shape = max(rates, key=lambda s: rates[s])
        best[precision] = shape, rates[shape], median(turn["single_ms"] for turn in turns)
    return best


def _plot(report: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    lines: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    for name, turns in report["rows"].items():
        server, _, clients = name.rpartition(", ")
        if clients.endswith(" clients"):
            rate, p50 = (median(t[key] for t in turns) for key in ("images_per_s", "p50_ms"))
            lines[server].append((int(clients.split()[0]), rate, p50))
    for server, points in lines.items():
        clients, rates, p50s = zip(*points, strict=True)
        axes[0].plot(clients, rates, marker="o", label=server)
        axes[1].plot(clients, p50s, marker="o", label=server)
    axes[0].set(title="Throughput", xlabel="clients", ylabel="images/s", ylim=0)
    axes[1].set(title="Median latency", xlabel="clients", ylabel="ms", ylim=0)
    axes[0].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
