"""Measure an ONNX file alone, in a loop of ONNX Runtime without HTTP or photos. Print JSON.

``python -m benchmarks.bare_onnx FILE SECONDS [SHAPE…]``
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime as ort

from benchmarks.loops import Pass, measure
from predictor.engine.cpus import available_cpus


def open_file(path: str, threads: int) -> ort.InferenceSession:
    """Open the file as the app does, but let threads spin between operators: nothing else runs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return ort.InferenceSession(path, options, ["CPUExecutionProvider"])


def main() -> None:
    """Print the rates of the graph in all shapes, or in those given."""
    path, seconds, *shapes = sys.argv[1:]
    cpus = available_cpus()
    sessions = {threads: open_file(path, threads) for threads in {1, cpus}}

    def passes(threads: int, size: int) -> Pass:
        # With one thread, a session computes in the thread that calls it, so loops can share it.
        session = sessions[threads]
        (image,) = session.get_inputs()
        batch = np.random.rand(size, *image.shape[1:]).astype(np.float32)
        return lambda: session.run(None, {image.name: batch})

    print(json.dumps(measure(passes, cpus, (1, 2, 4, 8), float(seconds), shapes)))


if __name__ == "__main__":
    main()
