import fcntl
import os
import runpy
import subprocess
import sys

import pytest
import torch
from torch import nn

from predictor.models import shared_weights
from predictor.models.loading import load_model
from predictor.models.shared_weights import load_shared
from predictor.settings import Settings


@pytest.fixture
def memory():
    fd = os.memfd_create("weights", os.MFD_ALLOW_SEALING)
    yield fd
    os.close(fd)


def layer():
    torch.manual_seed(0)
    return nn.Conv2d(3, 4, 3).eval().to(torch.bfloat16, memory_format=torch.channels_last)


def empty(_state):
    with torch.device("meta"):
        return nn.Conv2d(3, 4, 3).eval()


def must_not_build():
    raise AssertionError("the weights are already in memory")


def test_first_process_builds_and_others_map_the_same_layout(memory):
    first = load_shared(memory, "a", layer, empty)
    second = load_shared(memory, "a", must_not_build, empty)
    for network in (first, second):
        assert torch.equal(network.weight, layer().weight)
        assert network.weight.dtype == torch.bfloat16
        assert network.weight.is_contiguous(memory_format=torch.channels_last)
        assert not network.weight.requires_grad


def test_shared_weights_cannot_be_changed(memory):
    load_shared(memory, "a", layer, empty)
    with pytest.raises(PermissionError):
        os.pwrite(memory, b"x", 0)


def test_process_with_another_model_builds_its_own(memory):
    load_shared(memory, "a", layer, empty)
    other = load_shared(memory, "b", lambda: nn.Linear(2, 2), empty)
    assert isinstance(other, nn.Linear)
    load_shared(memory, "a", must_not_build, empty)


def test_half_written_weights_of_a_killed_process_are_replaced(memory):
    os.write(memory, b"PK half of it")
    load_shared(memory, "a", layer, empty)
    assert torch.equal(load_shared(memory, "a", must_not_build, empty).weight, layer().weight)


def test_next_process_builds_after_one_fails(memory):
    with pytest.raises(AssertionError):
        load_shared(memory, "a", must_not_build, empty)
    load_shared(memory, "a", layer, empty)


def test_other_processes_wait_while_one_writes(memory):
    """The lock excludes other processes, so another process tests it."""
    probe = (
        "import fcntl, sys\n"
        "try: fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB); print('free')\n"
        "except BlockingIOError: print('taken')"
    )

    def seen_by_another():
        command = [sys.executable, "-c", probe, str(memory)]
        done = subprocess.run(command, pass_fds=[memory], capture_output=True, text=True)
        return done.stdout.strip()

    seen = []

    def build():
        seen.append(seen_by_another())
        return layer()

    load_shared(memory, "a", build, empty)
    assert [*seen, seen_by_another()] == ["taken", "free"]
    assert fcntl.fcntl(memory, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE


def test_shared_weights_give_the_same_logits(memory):
    settings = {"model": "efficientnet_lite0", "precision": "float32"}
    own = load_model(Settings(**settings), 2).scorer
    photo = torch.randint(0, 255, (224, 224, 3), dtype=torch.uint8).numpy()
    for _ in range(2):
        model = load_model(Settings(**settings, shared_weights_fd=memory), 2)
        shared, info = model.scorer, model.info
        assert (shared.logits([photo]) == own.logits([photo])).all()
        assert info.weights.endswith("efficientnet-lite0-57934424.pth")


def test_module_can_be_imported_where_fcntl_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)  # importing it fails
    assert "load_shared" in runpy.run_path(shared_weights.__file__)
