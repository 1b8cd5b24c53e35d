"""Keep one copy of the weights in memory for several processes. Linux only.

The first process writes the weights to a memory file, in the precision and layout that the network
uses. All processes map this file. Otherwise each process would hold its own 0.5 GB. Mapping the
published files would not do: torch cannot map vgg16-397923af.pth, whose format is too old, and the
files that torch can map have another precision and layout.
"""

import os
from collections.abc import Callable

import torch
from torch import Tensor, nn


def load_shared(
    fd: int,
    identity: str,
    build: Callable[[], nn.Module],
    build_empty: Callable[[dict[str, Tensor]], nn.Module],
) -> nn.Module:
    """Return the network with weights that are mapped from a memory file.

    ``fd`` is a file from ``memfd_create`` with ``MFD_ALLOW_SEALING``. The file is empty at first,
    and all processes inherit it. The first process calls ``build`` for the network with its weights
    on the CPU. ``build_empty`` returns the network for a state_dict, without memory for weights.
    If the file holds weights with another ``identity``, return the network from ``build``.
    """
    _write_once(fd, identity, build)
    # Pass a path, because torch cannot map a descriptor. The mapping is private, and its pages are
    # shared until a process writes to them.
    content = torch.load(f"/proc/self/fd/{fd}", mmap=True, weights_only=True)
    if content["identity"] != identity:
        return build()
    network = build_empty(content["state"])
    network.load_state_dict(content["state"], assign=True)
    return network.requires_grad_(False)


def _write_once(fd: int, identity: str, build: Callable[[], nn.Module]) -> None:
    """Build and write the weights, or wait until another process has written them.

    If the process is killed, the kernel releases its lock. A lock from flock() would not exclude
    the other processes, because they inherit the descriptor and hold the lock together.
    """
    import fcntl  # not on Windows; the F_SEAL_ constants exist only on Linux

    fcntl.lockf(fd, fcntl.LOCK_EX)
    try:
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE:
            return
        content = {"identity": identity, "state": build().state_dict()}
        os.ftruncate(fd, 0)  # remove what a process that was killed has written
        os.lseek(fd, 0, os.SEEK_SET)
        with open(fd, "wb", closefd=False) as file:  # closing any descriptor would release the lock
            torch.save(content, file)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    finally:
        fcntl.lockf(fd, fcntl.LOCK_UN)
