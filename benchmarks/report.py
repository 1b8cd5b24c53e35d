"""Show the measurements as a table, ratios and a plot. Figures are medians of the rounds."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

Report = dict[str, Any]
COLUMNS = {
    "images/s": "images_per_s",
    "p50": "p50_ms",
    "p95": "p95_ms",
    "p99 ms": "p99_ms",
    "refused": "refused",
    "within ms": "refused_p99_ms",
    "CPU ms": "cpu_ms_per_image",
    "peak MB": "peak_pss_mb",
}


def show(report: Report) -> None:
    """Print the table, the start times and the ratios."""
    print(f"\n{report['model']} on {os.cpu_count()} processors, medians of the rounds\n")
    print(f"{'':44}" + "".join(f"{title:>10}" for title in COLUMNS))
    for precision, (shape, rate, single) in best_bare(report).items():
        print(f"{f'bare {precision}: {shape}':44}{rate:10.2f}{single:10.0f} (one image)")
    for name in report["rows"]:
        cells = (_median(report, name, column) for column in COLUMNS.values())
        print(f"{name:44}" + "".join(f"{v:10.{0 if i else 2}f}" for i, v in enumerate(cells)))
    print()
    for name, starts in report["start_s"].items():
        print(f"{name}: {median(starts):.1f} s from start to the first 200")
    print(*ratios(report), sep="\n")
    costs = [t["generator_cpu_ms_per_request"] for turns in report["rows"].values() for t in turns]
    print(f"the load generator: {median(costs):.1f} ms of processor time per request")


def best_bare(report: Report) -> dict[str, tuple[str, float, float]]:
    """Find the fastest shape (loops, threads and batch size) of the bare loop for each precision.

    Returns:
        By precision: the shape, its median images per second, and the milliseconds of one image.
    """
    best = {}
    for precision in {turn["precision"] for turn in report["bare"]}:
        turns = [turn for turn in report["bare"] if turn["precision"] == precision]
        rates = {s: median(t["images_per_s"][s] for t in turns) for s in turns[0]["images_per_s"]}
        shape = max(rates, key=lambda s: rates[s])
        best[precision] = shape, rates[shape], median(turn["single_ms"] for turn in turns)
    return best


def ratios(report: Report) -> Iterator[str]:
    """Yield lines that compare this app with the bare loop, the best textbook server and itself."""
    servers = set(report["start_s"])
    for ours in sorted(name for name in servers if name.startswith("this app")):
        textbooks = [name for name in servers if name.startswith("textbook")]
        loads = [n.removeprefix(f"{ours}, ") for n in report["rows"] if n.startswith(f"{ours}, ")]
        closed = [load for load in loads if load.endswith(" clients")]
        capacity = _median(report, f"{ours}, {closed[-1]}")
        _, bare, single = best_bare(report)[report["precision"][ours]]
        p50 = _median(report, f"{ours}, {closed[0]}", "p50_ms")
        yield f"{ours}, {closed[-1]}: {capacity / bare:.2f} of the bare loop's rate"
        yield f"{ours}, {closed[0]}: p50 {p50:.0f} ms; the bare loop: {single:.0f} ms an image"
        for load in closed:
            best = max(_median(report, f"{name}, {load}") for name in textbooks)
            rate = _median(report, f"{ours}, {load}")
            yield f"{ours}, {load}: {rate / best:.2f} times the best textbook's rate"
        for load in loads:
            if load not in closed:
                rate = _median(report, f"{ours}, {load}")
                yield f"{ours}, {load}: {rate / capacity:.2f} of the rate at {closed[-1]}"


def _median(report: Report, row: str, column: str = "images_per_s") -> float:
    return float(median(turn[column] for turn in report["rows"][row]))


def plot(report: Report, path: Path) -> None:
    """Plot throughput and median latency against the number of clients."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    lines: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    for name in report["rows"]:
        server, _, clients = name.rpartition(", ")
        if clients.endswith(" clients"):
            p50 = _median(report, name, "p50_ms")
            lines[server].append((int(clients.split()[0]), _median(report, name), p50))
    for server, points in lines.items():
        clients, rates, p50s = zip(*points, strict=True)
        axes[0].plot(clients, rates, marker="o", label=server)
        axes[1].plot(clients, p50s, marker="o", label=server)
    axes[0].set(title="Throughput", xlabel="clients", ylabel="images/s", ylim=0)
    axes[1].set(title="Median latency", xlabel="clients", ylabel="ms", ylim=0)
    axes[0].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
