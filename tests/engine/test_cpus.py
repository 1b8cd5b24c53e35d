import math
import os

import pytest

from predictor.engine.cpus import available_cpus, cgroup_quota, cpus_for_process


@pytest.fixture
def machine(tmp_path):
    """Write a machine's files and return the quota that is read from them."""

    def quota(membership, **files):
        proc = tmp_path / "proc"
        proc.mkdir()
        (proc / "cgroup").write_text(membership)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return cgroup_quota(tmp_path / "cgroup", proc)

    return quota


def test_cgroup_2_quota_of_the_group_itself(machine):
    assert machine("0::/pod\n", pod__cpu_dot_max="150000 100000\n") == 1.5


def test_cgroup_2_quota_of_a_parent_group(machine):
    files = {"pod__cpu_dot_max": "400000 100000\n", "pod__app__cpu_dot_max": "max 100000\n"}
    assert machine("0::/pod/app\n", **files) == 4


def test_cgroup_1_quota(machine):
    files = {
        "cpu__pod__cpu_dot_cfs_quota_us": "200000",
        "cpu__pod__cpu_dot_cfs_period_us": "100000",
    }
    assert machine("4:cpu,cpuacct:/pod\n", **files) == 2


def test_cgroup_1_minus_one_means_no_quota(machine):
    files = {"cpu__cpu_dot_cfs_quota_us": "-1", "cpu__cpu_dot_cfs_period_us": "100000"}
    assert machine("4:cpu:/\n", **files) == math.inf


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert cgroup_quota(tmp_path, tmp_path) == math.inf


@pytest.mark.parametrize(("quota", "cpus"), [(0.5, 1), (1.9, 1), (2.0, 2), (math.inf, 8)])
def test_cpus_are_the_lesser_of_affinity_and_quota_rounded_down(monkeypatch, quota, cpus):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr("predictor.engine.cpus.cgroup_quota", lambda: quota)
    assert available_cpus() == cpus


@pytest.fixture
def two_sockets(monkeypatch, tmp_path):
    """Eight hyper-threads, numbered as on a server with two sockets: 0 and 4 are one core."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for cpu in range(8):
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{cpu % 2}\n")
        (topology / "core_id").write_text(f"{cpu % 4}\n")
    return tmp_path


def test_each_process_gets_whole_cores_of_one_socket(two_sockets):
    sets = [cpus_for_process(index, 4, two_sockets) for index in range(4)]
    assert sets == [{0, 4}, {2, 6}, {1, 5}, {3, 7}]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_each_processor_belongs_to_exactly_one_process(two_sockets, count):
    sets = [cpus_for_process(index, count, two_sockets) for index in range(count)]
    assert set.union(*sets) == set(range(8))
    assert sum(map(len, sets)) == 8


def test_with_more_processes_than_processors_each_gets_one(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert [cpus_for_process(index, 3, tmp_path) for index in range(3)] == [{3}, {3}, {5}]


def test_without_affinity_the_machines_processors_count(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")  # macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr("predictor.engine.cpus.cgroup_quota", lambda: math.inf)
    assert available_cpus() == 6
