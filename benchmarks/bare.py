"""Measure the model alone, in a loop without HTTP or photos. Print JSON.

``python -m benchmarks.bare MODEL WEIGHTS PRECISION SECONDS``
"""

from __future__ import annotations

import json
import sys
import threading
from statistics import median
from time import perf_counter

import torch
import torchvision

from predictor.engine.cpus import available_cpus
from predictor.models.fusion import fuse

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"


def build(name: str, path: str, precision: str) -> torch.nn.Module:
    """Build the network as the app does: in that precision, channels last, fused, not compiled."""
    network: torch.nn.Module = torchvision.models.get_model(name)
    network.load_state_dict(torch.load(path, weights_only=True))
    dtype = getattr(torch, precision)
    network = network.eval().requires_grad_(False)
    network.to(DEVICE, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return fuse(network)


def photos(count: int, precision: str) -> torch.Tensor:
    """Return random pixels: ``(N, 3, 224, 224)``, channels last."""
    pixels = torch.rand(count, 3, 224, 224, dtype=getattr(torch, precision), device=DEVICE)
    return pixels.to(memory_format=torch.channels_last)


def loop(network: torch.nn.Module, batch: torch.Tensor, seconds: float) -> list[float]:
    """Return the seconds of each forward pass, except the first."""
    times: list[float] = []
    with torch.inference_mode():
        network(batch).cpu()
        begin = perf_counter()
        while perf_counter() - begin < seconds or len(times) < 3:
            start = perf_counter()
            network(batch).cpu()
            times.append(perf_counter() - start)
    return times


def side_by_side(
    network: torch.nn.Module, batch: torch.Tensor, teams: int, threads: int, seconds: float
) -> float:
    """Return the images per second of ``teams`` loops that share one network.

    Each loop runs the batch with ``threads`` threads of its own.
    """
    rates: list[float] = []

    def run() -> None:
        torch.set_num_threads(threads)
        times = loop(network, batch, seconds)
        rates.append(len(batch) * len(times) / sum(times))

    loops = [threading.Thread(target=run) for _ in range(teams)]
    for one in loops:
        one.start()
    for one in loops:
        one.join()
    return sum(rates)


def main() -> None:
    """Print the rate of several thread counts and batch sizes, and the latency of one image."""
    name, path, precision, seconds = sys.argv[1:]
    network, cpus = build(name, path, precision), available_cpus()
    layouts = [(1, 1)] if CUDA else sorted({(1, cpus), (cpus, 1)})
    sizes = (1, 8, 32, 64) if CUDA else (1, 2, 4, 8)
    rates = {
        f"{teams}×{threads} threads, batch {size}": side_by_side(
            network, photos(size, precision), teams, threads, float(seconds)
        )
        for teams, threads in layouts
        for size in sizes
    }
    torch.set_num_threads(cpus)
    latency = median(loop(network, photos(1, precision), float(seconds)))
    print(json.dumps({"images_per_s": rates, "single_ms": latency * 1000}))


if __name__ == "__main__":
    main()
