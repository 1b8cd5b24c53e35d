"""One copy of the weights in memory for several processes. Linux only.

The first process writes the weights to a memory file, in the precision and layout in which they
are served, and all processes map that file. Otherwise each of them would hold its own 0.5 GB.
Published files cannot be mapped instead: vgg16-397923af.pth has a format that is too old, and
those that can be mapped have another precision and layout.
"""

import os
from collections.abc import Callable

import torch
from torch import nn


def load_shared(
    fd: int, identity: str, build: Callable[[], nn.Module], build_empty: Callable[[], nn.Module]
) -> nn.Module:
    """Return the network with weights that are mapped from a memory file.

    The file is made by ``memfd_create`` with ``MFD_ALLOW_SEALING``, empty at first and inherited by
    all processes. The first process calls ``build`` for the network with its weights on the CPU.
    ``build_empty`` makes the same network without memory for its weights. If the file holds weights
    with another ``identity``, this process builds its own.
    """
    _write_once(fd, identity, build)
    # By path, because torch cannot map a descriptor. The mapping is private, and its pages are
    # shared until they are written to.
    content = torch.load(f"/proc/self/fd/{fd}", mmap=True, weights_only=True)
    if content["identity"] != identity:
        return build()
    network = build_empty()
    network.load_state_dict(content["state"], assign=True)
    return network.requires_grad_(False)


def _write_once(fd: int, identity: str, build: Callable[[], nn.Module]) -> None:
    """Build and write the weights, or wait for the process that does.

    The kernel releases the lock if the process is killed. flock() would not do: after a fork,
    parent and child hold it together.
    """
    import fcntl  # it is missing on Windows, and has the F_SEAL_ constants only on Linux

    fcntl.lockf(fd, fcntl.LOCK_EX)
    try:
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE:
            return
        content = {"identity": identity, "state": build().state_dict()}
        os.ftruncate(fd, 0)  # a process that was killed while writing may have left a part
        os.lseek(fd, 0, os.SEEK_SET)
        with open(fd, "wb", closefd=False) as file:  # closing any descriptor would release the lock
            torch.save(content, file)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    finally:
        fcntl.lockf(fd, fcntl.LOCK_UN)
