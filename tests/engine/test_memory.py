"""What Python does with garbage; what glibc does with freed memory, in a process of its own."""

import gc
import platform
import subprocess
import sys
import weakref

import pytest

from predictor.engine.memory import collect_garbage

PASSES = """
from resource import RUSAGE_SELF, getrusage
import numpy as np
from predictor.engine.memory import keep_for_next_pass, share_arenas

share_arenas()
if {keep}:
    keep_for_next_pass()

def forward():
    layers = [np.ones(5_000_000, np.uint8) for _ in range(5)]

for _ in range(3):
    forward()
before = getrusage(RUSAGE_SELF).ru_minflt
for _ in range(10):
    forward()
print((getrusage(RUSAGE_SELF).ru_minflt - before) / 10)
"""


def page_faults(keep):
    command = [sys.executable, "-c", PASSES.format(keep=keep)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is not glibc")
@pytest.mark.slow
def test_a_forward_pass_finds_the_memory_of_the_one_before():
    assert page_faults(keep=False) > 1000  # or the setting is no longer needed
    assert page_faults(keep=True) < 10


class Cycle:
    itself = None


@pytest.mark.parametrize("frozen", [True, False])
def test_garbage_is_collected_also_among_frozen_objects(frozen):
    cycle = Cycle()
    cycle.itself, alive = cycle, weakref.ref(cycle)
    try:
        if frozen:
            gc.freeze()
        del cycle
        collect_garbage()
        assert alive() is None
        assert (gc.get_freeze_count() > 0) == frozen
    finally:
        gc.unfreeze()
