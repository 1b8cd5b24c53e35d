import fcntl
import gc
import logging
import os
import runpy
import signal
import subprocess
import sys

import pytest
import torch
from torch import nn

from predictor.models import shared_weights
from predictor.models.loading import load_model
from predictor.models.shared_weights import create_files, identify, is_shared, load_shared
from predictor.settings import Settings


@pytest.fixture
def files():
    fds = create_files(2)
    yield fds
    for fd in fds:
        os.close(fd)


def layer():
    torch.manual_seed(0)
    return nn.Conv2d(3, 4, 3).eval().to(torch.bfloat16, memory_format=torch.channels_last)


def empty(_state):
    with torch.device("meta"):
        return nn.Conv2d(3, 4, 3).eval()


def must_not_build():
    raise AssertionError("the weights are already in memory")


def load(files, identity="a", form="bfloat16", build=layer):
    return load_shared(files, identity, form, build, empty)


def sizes(files):
    return [os.fstat(fd).st_size for fd in files[1:]]


def test_first_process_builds_and_others_map_the_same_layout(files):
    first, second = load(files), load(files, build=must_not_build)
    for network in (first, second):
        assert torch.equal(network.weight, layer().weight)
        assert network.weight.dtype == torch.bfloat16
        assert network.weight.is_contiguous(memory_format=torch.channels_last)
        assert not network.weight.requires_grad


def test_writing_to_mapped_weights_changes_no_other_process(files):
    first, second = load(files), load(files)
    first.weight.zero_()
    assert torch.equal(second.weight, layer().weight)
    for fd in files:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(fd, b"x", 0)


def test_every_kind_of_tensor_is_mapped_as_it_was(files):
    def network(device="cpu"):
        with torch.device(device):
            made = nn.Sequential(nn.BatchNorm2d(3), nn.Linear(2, 3).double())
            for name, tensor in [
                ("scalar", torch.tensor(7)),
                ("flag", torch.tensor([True, False])),
                ("nothing", torch.empty(0, 4)),
                ("permuted", torch.arange(6.0).reshape(2, 3).t()),
                ("with_gaps", torch.arange(6.0)[::2]),
            ]:
                made.register_buffer(name, tensor)
            return made

    torch.manual_seed(0)
    expected = network().state_dict()

    def build():
        torch.manual_seed(0)
        return network()

    shared = load_shared(files, "a", "", build, lambda _: network("meta")).state_dict()
    assert all(torch.equal(shared[name], tensor) for name, tensor in expected.items())
    assert shared["permuted"].stride() == expected["permuted"].stride()
    assert shared._metadata == expected._metadata


@pytest.mark.parametrize("other", [{"identity": "b"}, {"form": "float32"}])
def test_other_weights_and_forms_get_a_file_of_their_own(files, other):
    first = load(files)
    second = load(files, **other)
    assert all(sizes(files))
    assert load(files, **other, build=must_not_build)
    assert load(files, build=must_not_build)
    del first, second


def test_without_a_free_file_the_weights_are_not_shared(files, caplog):
    networks = [load(files, identity) for identity in "abc"]
    assert torch.equal(networks[2].weight, layer().weight)
    assert caplog.messages == ["More than 2 models: the weights of one are not shared."]
    assert caplog.records[0].levelno == logging.WARNING


def test_memory_is_returned_after_the_last_tensor(files):
    networks = [load(files), load(files)]
    weights = [networks[0].weight]
    networks.clear()
    gc.collect()
    assert torch.equal(weights[0], layer().weight)  # otherwise SIGBUS would end the process
    assert any(sizes(files))
    weights.clear()
    gc.collect()
    assert sizes(files) == [0, 0]


def test_next_process_builds_after_one_fails(files):
    with pytest.raises(AssertionError):
        load(files, build=must_not_build)
    assert load(files) is not None


def start(files, build):
    """Start a process that loads the weights, says so and ends by SIGKILL or at the end of stdin"""
    program = (
        "import os, signal, sys\n"
        "from torch import nn\n"
        "from predictor.models import shared_weights\n"
        "write = shared_weights._write\n"
        "def build():\n"
        "    print('builds', flush=True)\n"
        f"    {build}\n"
        "    return nn.Conv2d(3, 4, 3)\n"
        "files = [int(fd) for fd in sys.argv[1:]]\n"
        "net = shared_weights.load_shared(\n"
        "    files, 'a', 'bfloat16', build, lambda _: nn.Conv2d(3, 4, 3)\n"
        ")\n"
        "print('holds', flush=True)\n"
        "sys.stdin.read()\n"
        "os._exit(0)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, files)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=files,
    )  # fmt: skip


KILLED_WHILE_WRITING = (
    "shared_weights._write = lambda state, file:"
    " (file.write(b'half'), file.flush(), os.kill(os.getpid(), signal.SIGKILL))"
)


@pytest.mark.parametrize("build", ["os.kill(os.getpid(), signal.SIGKILL)", KILLED_WHILE_WRITING])
def test_a_process_killed_while_it_loads_stops_no_other(files, build):
    with start(files, build) as process:
        assert process.wait(timeout=60) == -signal.SIGKILL
    assert any(sizes(files)) == (build == KILLED_WHILE_WRITING)
    network = load(files)
    assert torch.equal(network.weight, layer().weight)
    assert sum(map(bool, sizes(files))) == 1


def test_weights_of_a_killed_process_are_mapped_while_others_use_them(files):
    with start(files, "pass") as process:
        assert process.stdout.readline() + process.stdout.readline() == "builds\nholds\n"
        network = load(files, build=must_not_build)
        process.kill()
    assert load(files, build=must_not_build)
    assert is_shared(files, "a")
    del network
    gc.collect()
    assert sizes(files) == [0, 0]
    assert not is_shared(files, "a")


def test_others_wait_while_one_builds(files):
    with (
        start(files, "sys.stdin.readline()") as process,
        open(f"/proc/self/fd/{files[0]}") as index,
    ):
        assert process.stdout.readline() == "builds\n"
        with pytest.raises(BlockingIOError):
            fcntl.flock(index, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process.stdin.write("\n")
        process.stdin.flush()
        assert load(files, build=must_not_build)
        process.kill()


def test_a_replaced_or_changed_file_has_another_identity(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"one")
    first, of_folder = identify(path), identify(tmp_path)
    assert identify(path) == first
    (tmp_path / "new").write_bytes(b"two")
    (tmp_path / "new").replace(path)
    assert identify(path) != first
    assert identify(tmp_path) != of_folder
    link = tmp_path / "link"
    link.symlink_to(path)
    assert identify(link) == identify(path)


def test_shared_weights_give_the_same_logits(files):
    settings = {"model": "efficientnet_lite0", "precision": "float32"}
    own = load_model(Settings(**settings), 2).scorer
    photo = torch.randint(0, 255, (224, 224, 3), dtype=torch.uint8).numpy()
    models = []
    for _ in range(2):
        models.append(load_model(Settings(**settings, shared_weights=files), 2))
        shared, info = models[-1].scorer, models[-1].info
        assert (shared.logits([photo]) == own.logits([photo])).all()
        assert info.weights.endswith("efficientnet-lite0-57934424.pth")
    assert sum(map(bool, sizes(files))) == 1
    del models, shared
    gc.collect()  # a fused network and its graph refer to each other; the fixture closes the files


def test_module_can_be_imported_where_fcntl_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)  # importing it fails
    assert "load_shared" in runpy.run_path(shared_weights.__file__)
