import math

import pytest
import torch
from torch import nn

from predictor.errors import StoreError
from predictor.models.shared_weights import create_files, identify, load_shared
from predictor.store import memory
from predictor.store.memory import FACTOR, MARGIN, MIB, available_memory, require_room

MEMINFO = "MemTotal:  9000 kB\nMemFree:  1 kB\nMemAvailable:   8000 kB\n"


@pytest.fixture
def machine(tmp_path):
    """Write a machine's files and return the memory that is available by them."""

    def available(membership, files):
        for name, text in {"proc/self/cgroup": membership, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return available_memory(tmp_path / "cgroup", tmp_path / "proc")

    return available


def group(folder, most, used, cache):
    return {
        f"cgroup/{folder}memory.max": f"{most}\n",
        f"cgroup/{folder}memory.current": f"{used}\n",
        f"cgroup/{folder}memory.stat": f"anon 7\nactive_file 9\ninactive_file {cache}\n",
    }


def test_without_control_groups_the_machine_counts(machine):
    assert machine("", {"proc/meminfo": MEMINFO}) == 8000 * 1024


def test_without_proc_nothing_is_known(tmp_path):
    assert available_memory(tmp_path, tmp_path) == math.inf


def test_reclaimable_cache_of_the_control_group_is_available(machine):
    files = {"proc/meminfo": MEMINFO} | group("pod/", 5000, 4000, 300)
    assert machine("0::/pod\n", files) == 1300


@pytest.mark.parametrize(("own", "parents", "left"), [(2000, 9000, 1000), ("max", 3000, 2000)])
def test_lowest_group_of_the_path_counts(machine, own, parents, left):
    files = group("pod/app/", own, 1000, 0) | group("pod/", parents, 1000, 0)
    assert machine("0::/pod/app\n", files) == left


def test_control_group_of_version_1(machine):
    folder = "cgroup/memory/pod"
    files = {
        f"{folder}/memory.limit_in_bytes": "5000",
        f"{folder}/memory.usage_in_bytes": "4500",
        f"{folder}/memory.stat": "inactive_file 1\ntotal_inactive_file 100\n",
    }
    assert machine("8:cpu:/\n4:memory:/pod\n", files) == 600


def test_a_group_above_its_limit_has_no_room(machine, monkeypatch, tmp_path):
    left = machine("0::/pod\n", group("pod/", 1000, 4000, 0))
    monkeypatch.setattr(memory, "available_memory", lambda: left)
    with pytest.raises(StoreError, match="only 0 MiB are available"):
        require_room([])


@pytest.fixture
def files(tmp_path):
    for name, size in (("model.pt", 3 * MIB), ("model.toml", 10)):
        (tmp_path / name).write_bytes(bytes(size))
    return sorted(tmp_path.iterdir())


def test_files_that_do_not_fit_are_refused_with_both_numbers(files, monkeypatch):
    needed = FACTOR * (3 * MIB + 10) + MARGIN
    monkeypatch.setattr(memory, "available_memory", lambda: needed)
    require_room(files)
    monkeypatch.setattr(memory, "available_memory", lambda: needed - 1)
    sentence = f"about {needed / MIB:,.0f} MiB of memory, and only .* MiB are available. Unload"
    with pytest.raises(StoreError, match=sentence):
        require_room(files)


@pytest.mark.parametrize("name", ["model.pt", "."])
def test_weights_that_another_process_holds_count_nothing(files, monkeypatch, name):
    monkeypatch.setattr(memory, "available_memory", lambda: MARGIN + FACTOR * MIB)
    shared = create_files(1)
    with pytest.raises(StoreError):
        require_room(files, shared)
    identity = identify(files[0].parent / name)
    network = load_shared(shared, identity, "", lambda: nn.Linear(2, 2), lambda _: nn.Linear(2, 2))
    require_room(files, shared)
    assert isinstance(network.weight, torch.Tensor)
