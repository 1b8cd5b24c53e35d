import fcntl
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from predictor.models.network import load_model
from predictor.models.shared_weights import share
from predictor.settings import Settings


@pytest.fixture
def memory():
    fd = os.memfd_create("weights", os.MFD_ALLOW_SEALING)
    yield fd
    os.close(fd)


def layer():
    torch.manual_seed(0)
    return nn.Conv2d(3, 4, 3).eval().to(torch.bfloat16, memory_format=torch.channels_last)


def empty():
    with torch.device("meta"):
        return nn.Conv2d(3, 4, 3).eval()


def must_not_build():
    raise AssertionError("the weights are there already")


def test_the_first_builds_and_the_others_map_the_same_in_the_same_layout(memory):
    first = share(memory, "a", layer, empty)
    second = share(memory, "a", must_not_build, empty)
    for network in (first, second):
        assert torch.equal(network.weight, layer().weight)
        assert network.weight.dtype == torch.bfloat16
        assert network.weight.is_contiguous(memory_format=torch.channels_last)
        assert not network.weight.requires_grad


def test_what_is_shared_can_no_longer_be_changed(memory):
    share(memory, "a", layer, empty)
    with pytest.raises(PermissionError):
        os.pwrite(memory, b"x", 0)


def test_a_process_that_serves_another_model_keeps_its_own(memory):
    share(memory, "a", layer, empty)
    other = share(memory, "b", lambda: nn.Linear(2, 2), empty)
    assert isinstance(other, nn.Linear)
    share(memory, "a", must_not_build, empty)


def test_what_a_killed_process_left_half_written_is_written_anew(memory):
    os.write(memory, b"PK half of it")
    share(memory, "a", layer, empty)
    assert torch.equal(share(memory, "a", must_not_build, empty).weight, layer().weight)


def test_a_failure_to_build_leaves_the_place_to_the_next(memory):
    with pytest.raises(AssertionError):
        share(memory, "a", must_not_build, empty)
    share(memory, "a", layer, empty)


def test_others_wait_while_one_writes(memory):
    """As another process sees it, for which the lock is meant."""
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

    share(memory, "a", build, empty)
    assert [*seen, seen_by_another()] == ["taken", "free"]
    assert fcntl.fcntl(memory, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE


def test_a_shared_model_answers_as_one_of_its_own(memory):
    settings = {"model": "efficientnet_lite0", "precision": "float32"}
    own, _ = load_model(Settings(**settings), 1000)
    photo = torch.randint(0, 255, (224, 224, 3), dtype=torch.uint8).numpy()
    for _ in range(2):
        shared, info = load_model(Settings(**settings, shared_weights_fd=memory), 1000)
        assert (shared.logits([photo]) == own.logits([photo])).all()
        assert info.weights.endswith("efficientnet-lite0-57934424.pth")
