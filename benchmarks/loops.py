"""Time forward passes in loops, whatever runs them. Imports neither torch nor ONNX Runtime."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from statistics import median
from time import perf_counter

Pass = Callable[[], object]
# Returns a forward pass with so many threads on so many images. The thread that calls it runs it.
Passes = Callable[[int, int], Pass]


def loop(forward: Pass, seconds: float) -> list[float]:
    """Return the seconds of each forward pass, except the first."""
    times: list[float] = []
    forward()
    begin = perf_counter()
    while perf_counter() - begin < seconds or len(times) < 3:
        start = perf_counter()
        forward()
        times.append(perf_counter() - start)
    return times


def side_by_side(passes: Passes, teams: int, threads: int, size: int, seconds: float) -> float:
    """Return the images per second of ``teams`` loops, each of ``threads`` threads."""
    rates: list[float] = []

    def run() -> None:
        times = loop(passes(threads, size), seconds)
        rates.append(size * len(times) / sum(times))

    loops = [threading.Thread(target=run) for _ in range(teams)]
    for one in loops:
        one.start()
    for one in loops:
        one.join()
    return sum(rates)


def measure(
    passes: Passes, cpus: int, sizes: Collection[int], seconds: float, only: Collection[str] = ()
) -> dict[str, object]:
    """Return the rates of several thread counts and batch sizes, and the time of one image.

    Args:
        passes: what to measure.
        cpus: the processors: one loop uses all, or each loop one.
        sizes: of the batches.
        seconds: of each measurement, at least three passes.
        only: the shapes to measure, such as ``2×1 threads, batch 4``; by default all.
    """
    shapes = {
        f"{teams}×{threads} threads, batch {size}": (teams, threads, size)
        for teams, threads in sorted({(1, cpus), (cpus, 1)})
        for size in sizes
    }
    rates = {
        name: side_by_side(passes, *shape, seconds)
        for name, shape in shapes.items()
        if not only or name in only
    }
    return {"images_per_s": rates, "single_ms": median(loop(passes(cpus, 1), seconds)) * 1000}
