"""Run the benchmark: ``python -m benchmarks`` (see ``--help``)."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data

from benchmarks import recipes
from benchmarks.network import write_weights
from benchmarks.recipes import SLOTS, Missing
from benchmarks.report import best_shapes, circumstances, plot, show
from benchmarks.servers import ROOT, NotReady, Recipe, Server, running

PHOTOS = ("astronaut", "cat", "coffee", "rocket", "camera", "immunohistochemistry")


def main() -> None:
    """Measure all servers in turns, print a table, and write a JSON file and a plot."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stops the server, too
    options.output.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        report = _measure(options, Path(folder))
    show(report)
    path = _results(options)
    plot(report, path.with_suffix(".png"))
    print(f"\nWritten: {path} and {path.stem}.png")


def _results(options: argparse.Namespace) -> Path:
    return Path(options.output, "bench-peers.json" if options.peers else "bench.json")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    # fmt: off
    add("--model", default="vgg16", help="of torchvision, or efficientnet_lite0 (default: vgg16)")
    add("--precision", default="auto", help="precision of this app (default: auto)")
    add("--seconds", type=float, default=15, help="seconds of each measurement")
    add("--rounds", type=int, default=3, help="how often to measure every server")
    add("--clients", type=int, nargs="+", default=[1, 8, 32])
    add("--loads", type=float, nargs="*", default=[0.5, 0.9, 1.5],
        help="open-loop loads, as fractions of this app's capacity")
    add("--calibrate", nargs="+", metavar="PHOTOS",
        help="photos that set the int8 ranges (default: those of the benchmark)")
    add("--only", nargs="+", metavar="TEXT",
        help="measure only servers with one of these texts in their names")
    add("--peers", action="store_true", help="measure other projects' servers in place of"
        " ONNX files, textbook apps, large photos and loads (`make bench-peers`)")
    add("--output", type=Path, default=ROOT / "benchmark-results",
        help="folder of the results, and of exports, which are used again")
    # fmt: on
    return parser


def _measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    weights = write_weights(options.model, folder / "weights.pth")
    small = _write_photos(folder / "small", 500 * 375)
    _write_photos(folder / "large", 12_000_000)
    report = {"model": options.model, **circumstances(), "precision": {}, "bare": []}
    report |= {"start_s": defaultdict(list), "rows": defaultdict(list)}
    servers = [*_recipes(options, weights, small)]
    for turn in range(options.rounds):
        for recipe in servers[:]:
            chosen = report["precision"].get("this app")
            if (recipe.name, chosen) == ("this app float32", "float32"):
                continue  # `auto` has already chosen float32
            print(f"round {turn + 1}: {recipe.name}", file=sys.stderr)
            try:
                with running(recipe) as (server, start_s):
                    report["start_s"][recipe.name].append(start_s)
                    _turn(options, server, recipe, weights, folder, report)
            except NotReady as error:
                if _is_ours(recipe):
                    raise
                print(f"left out from here on: {error}", file=sys.stderr)
                servers.remove(recipe)
        _results(options).write_text(json.dumps(report, indent=1))  # if a later round is broken off
    return report


def _is_ours(recipe: Recipe) -> bool:
    return recipe.name.startswith("this app")


def _turn(
    options: argparse.Namespace, server: Server, recipe: Recipe, weights: Path, folder: Path,
    report: dict[str, Any],
) -> None:  # fmt: skip
    """Measure a running server once. Add the figures to the report."""
    rows, load = report["rows"], partial(_load, server, recipe)
    if _is_ours(recipe):
        precision = report["precision"][recipe.name] = _precision(server, recipe)
        if not options.peers:  # just before the app, at the same speed of the machine
            loop = _bare(options, weights, recipe, precision, report["bare"])
            report["bare"].append(loop)
    for clients in options.clients:
        name = f"{recipe.name}, {clients} clients"
        rows[name].append(load(folder / "small", options.seconds, "closed", clients))
    if not _is_ours(recipe) or options.peers:
        return
    capacity = rows[name][-1]["images_per_s"]
    large = load(folder / "large", options.seconds, "closed", 8)
    rows[f"{recipe.name}, 8 clients, 12 MP"].append(large)
    for part in options.loads:
        fill_s = SLOTS / capacity / (part - 1) if part > 1 else 0
        row = load(folder / "small", options.seconds + fill_s, "open", part * capacity)
        rows[f"{recipe.name}, open loop at {part:.0%}"].append(row)


def _recipes(options: argparse.Namespace, weights: Path, photos: Path) -> Iterator[Recipe]:
    """Yield the servers to measure. Print why others are left out."""
    photo, model = next(photos.iterdir()).read_bytes(), options.model
    kinds: list[Callable[[], Iterable[Recipe]]] = [
        lambda: recipes.ours(model, weights, options.precision)
    ]
    if options.peers:
        kinds += [partial(recipes.peer, module, model, weights, photo) for module in recipes.PEERS]
        kinds.append(lambda: recipes.torchserve(options, weights, photo))
    else:
        kinds.append(lambda: recipes.onnx(options, weights, photos))
        kinds.append(lambda: recipes.textbooks(model, weights))
    for kind in kinds:
        try:
            for recipe in kind():
                if recipes.wanted(options, recipe.name):
                    yield recipe
        except Missing as missing:
            print(f"left out: {missing}", file=sys.stderr)


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


def _load(
    server: Server, recipe: Recipe, photos: Path, seconds: float, kind: str, amount: float
) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.load", "127.0.0.1", str(server.port), str(photos)]
    with server.peak_pss_mb() as memory:
        before = server.cpu_s()
        tail = [str(seconds), kind, str(amount), recipe.path, recipe.form]
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


def _precision(server: Server, recipe: Recipe) -> str:
    """Return the precision that the app serves in, and before it "ONNX " if torch does not."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/readyz") as response:
        precision = str(json.load(response)["model"]["precision"])
    return f"ONNX {precision}" if "ONNX" in recipe.name else precision


def _bare(
    options: argparse.Namespace, weights: Path, recipe: Recipe, precision: str, done: list[Any]
) -> dict[str, Any]:
    """Run the bare loop of what a recipe serves: in all shapes, and later in the best two."""
    shapes = best_shapes([turn for turn in done if turn["precision"] == precision])
    what = ["benchmarks.bare", options.model, str(weights), precision]
    if precision.startswith("ONNX"):
        what = ["benchmarks.bare_onnx", recipe.environ["PREDICTOR_MODEL"]]
    command = [sys.executable, "-m", *what, str(options.seconds / 4), *shapes]
    loop = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return {"precision": precision, **json.loads(loop.stdout)}


if __name__ == "__main__":
    main()
