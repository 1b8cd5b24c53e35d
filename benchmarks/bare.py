"""Measure the model alone, in a loop without HTTP or photos. Print JSON.

``python -m benchmarks.bare MODEL WEIGHTS PRECISION SECONDS [SHAPE…]``
"""

from __future__ import annotations

import json
import sys

import torch

from benchmarks.loops import Pass, measure
from benchmarks.network import load
from predictor.engine.cpus import available_cpus
from predictor.models.fusion import fuse

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"


def build(name: str, path: str, precision: str) -> torch.nn.Module:
    """Build the network as the app does: in that precision, channels last, fused, not compiled."""
    network = load(name, path).requires_grad_(False)
    dtype = getattr(torch, precision)
    network.to(DEVICE, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return fuse(network)


def photos(count: int, precision: str) -> torch.Tensor:
    """Return random pixels: ``(N, 3, 224, 224)``, channels last."""
    pixels = torch.rand(count, 3, 224, 224, dtype=getattr(torch, precision), device=DEVICE)
    return pixels.to(memory_format=torch.channels_last)


def main() -> None:
    """Print the rates of the network in all shapes, or in those given."""
    name, path, precision, seconds, *shapes = sys.argv[1:]
    network = build(name, path, precision)

    def passes(threads: int, size: int) -> Pass:
        torch.set_num_threads(threads)
        batch = photos(size, precision)

        @torch.inference_mode()
        def forward() -> None:
            network(batch).cpu()

        return forward

    cpus, sizes = (1, (1, 8, 32, 64)) if CUDA else (available_cpus(), (1, 2, 4, 8))
    print(json.dumps(measure(passes, cpus, sizes, float(seconds), shapes)))


if __name__ == "__main__":
    main()
