"""Show the measurements as a table, ratios and a plot. Figures are medians of the rounds."""

from __future__ import annotations

import platform
import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from predictor.engine.cpus import available_cpus

Report = dict[str, Any]
COLUMNS = {
    "images/s": "images_per_s",
    "p50 ms": "p50_ms",
    "p95 ms": "p95_ms",
    "p99 ms": "p99_ms",
    "refused": "refused",
    "within ms": "refused_p99_ms",
    "CPU ms": "cpu_ms_per_image",
    "peak MB": "peak_pss_mb",
}
PACKAGES = ("torch", "torchvision", "onnxruntime", "litserve", "bentoml", "mosec", "ray")


def circumstances() -> dict[str, Any]:
    """Return the date, the machine, the command and the versions of a measurement."""
    cpu = re.search("^model name\\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "date": date.today().isoformat(),
        "machine": f"{available_cpus()} × {cpu[1] if cpu else platform.machine()}",
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "versions": versions,
    }


def show(report: Report) -> None:
    """Print the table, the start times and the ratios."""
    versions = ", ".join(f"{name} {one}" for name, one in report["versions"].items())
    print(f"\n{report['model']}, {report['date']}, {report['machine']}, medians of the rounds")
    print(f"{report['command']}; {versions}\n")
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
    print("", *markdown(report), "", sep="\n")
    costs = [t["generator_cpu_ms_per_request"] for turns in report["rows"].values() for t in turns]
    print(f"the load generator: {median(costs):.1f} ms of processor time per request")


def markdown(report: Report) -> Iterator[str]:
    """Yield the lines of a table: images per second, and what the most clients wait and cost."""
    columns = [name.rpartition(", ")[2] for name in report["rows"]]
    closed = list(dict.fromkeys(name for name in columns if name.endswith(" clients")))
    figures = ("p50 ms", "p99 ms", "CPU ms", "peak MB")
    yield f"| images/s; then, at {closed[-1]}: | {' | '.join((*closed, *figures))} |"
    yield "|---|" + "--:|" * (len(closed) + len(figures))
    for server in report["start_s"]:
        cells = [f"{_median(report, f'{server}, {clients}'):.1f}" for clients in closed]
        for column in figures:
            figure = _median(report, f"{server}, {closed[-1]}", COLUMNS[column])
            cells.append(f"{figure:,.0f}")
        yield f"| {server} | {' | '.join(cells)} |"


def best_bare(report: Report) -> dict[str, tuple[str, float, float]]:
    """Find the fastest shape (loops, threads and batch size) of the bare loop for each precision.

    Returns:
        By precision: the shape, its median images per second, and the milliseconds of one image.
    """
    best = {}
    for precision in dict.fromkeys(turn["precision"] for turn in report["bare"]):
        turns = [turn for turn in report["bare"] if turn["precision"] == precision]
        (shape, rate), *_ = _rates(turns).items()
        best[precision] = shape, rate, median(turn["single_ms"] for turn in turns)
    return best


def best_shapes(turns: list[dict[str, Any]]) -> list[str]:
    """Return the two fastest shapes in turns of one precision; none if there were no turns."""
    return [*_rates(turns)][:2] if turns else []


def _rates(turns: list[dict[str, Any]]) -> dict[str, float]:
    """Return the median rates of the shapes that are in all turns, the fastest first."""
    found = [turn["images_per_s"] for turn in turns]
    shapes = set(found[0]).intersection(*found)
    rates = {shape: median(rates[shape] for rates in found) for shape in shapes}
    return dict(sorted(rates.items(), key=lambda one: -one[1]))


def ratios(report: Report) -> Iterator[str]:
    """Yield lines that compare this app with the bare loop, with other servers and itself."""
    servers = [*report["start_s"]]
    for ours in sorted(name for name in servers if name.startswith("this app")):
        loads = [n.removeprefix(f"{ours}, ") for n in report["rows"] if n.startswith(f"{ours}, ")]
        closed = [load for load in loads if load.endswith(" clients")]
        capacity = _median(report, f"{ours}, {closed[-1]}")
        if bare := best_bare(report).get(report["precision"][ours]):
            p50 = _median(report, f"{ours}, {closed[0]}", "p50_ms")
            yield f"{ours}, {closed[-1]}: {capacity / bare[1]:.2f} of the bare loop's rate"
            yield f"{ours}, {closed[0]}: p50 {p50:.0f} ms; the bare loop: {bare[2]:.0f} ms an image"
        for load in closed:
            rate = _median(report, f"{ours}, {load}")
            others = {
                name: _median(report, f"{name}, {load}")
                for name in servers
                if not name.startswith("this app")
            }
            textbooks = [others.pop(one) for one in [*others] if one.startswith("textbook")]
            if textbooks:
                best = rate / max(textbooks)
                yield f"{ours}, {load}: {best:.2f} times the best textbook's rate"
            for name, other in others.items():
                yield f"{name}, {load}: {other / rate:.2f} times the rate of {ours}"
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
