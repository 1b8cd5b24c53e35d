"""How the processes of a server share processors, GPUs and weights."""

import fcntl
import os

import pytest

from fake_master import master, worker
from predictor.server import hooks
from predictor.settings import Settings, current_settings, hand_on

pytestmark = pytest.mark.usefixtures("start_of_the_master")


@pytest.fixture
def pinned(monkeypatch):
    """Pretend to have 8 processors; returns what the workers are pinned to."""
    sets = []
    monkeypatch.setattr(hooks, "available_cpus", lambda: 8)
    monkeypatch.setattr(hooks, "cpus_for_process", lambda index, count: (index, count))
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: sets.append((pid, cpus)))
    return sets


def test_each_worker_gets_a_gpu_of_its_own(pinned):
    hooks.state.gpus = ["2", "GPU-8f"]
    seen = []
    for slot in range(3):
        hooks.post_fork(master(), worker(slot))
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert seen == ["2", "GPU-8f", "2"]


@pytest.mark.parametrize("gpus", [[], ["0"]])
def test_workers_divide_the_processors_also_beside_a_gpu(pinned, gpus):
    hooks.state.gpus = gpus
    hooks.post_fork(master(workers=3), worker(slot=1))
    assert current_settings().torch_threads == 2
    assert pinned == [(0, (1, 3))]


def test_a_chosen_number_of_threads_is_kept(pinned):
    hand_on(Settings(torch_threads=3))
    hooks.post_fork(master(workers=3), worker())
    assert current_settings().torch_threads == 3


@pytest.mark.parametrize("gpus", [[], ["0"]])
def test_a_single_worker_is_not_pinned(pinned, gpus):
    hooks.state.gpus = gpus
    hooks.post_fork(master(), worker())
    assert pinned == []


@pytest.mark.parametrize(("workers", "gpus"), [(1, []), (2, ["0", "1"])])
def test_a_single_worker_and_workers_with_gpus_share_no_weights(workers, gpus):
    hooks.state.gpus = gpus
    hooks.on_starting(master(workers))
    assert hooks.state.shared_weights == ()


def test_several_workers_on_a_cpu_share_weights_also_after_a_reload(pinned):
    server = master(workers=2)
    hooks.on_starting(server)
    files = hooks.state.shared_weights
    hooks.on_reload(server)
    hooks.post_fork(server, worker())
    assert current_settings().shared_weights == hooks.state.shared_weights == files != ()


def test_the_master_frees_weights_that_no_process_uses_any_more():
    hooks.on_starting(master(workers=2))
    _, used, unused, *_ = hooks.state.shared_weights
    for fd in (used, unused):
        os.truncate(f"/proc/self/fd/{fd}", 1000)
    with open(f"/proc/self/fd/{used}") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        hooks.child_exit(master(), worker())
    assert [os.fstat(fd).st_size for fd in (used, unused)] == [1000, 0]
