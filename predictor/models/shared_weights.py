"""One copy of the weights in memory for several processes. Linux only.

The first process writes the weights to a memory file, in the precision and layout in which they
are served, and all processes map that file. Otherwise each of them would hold its own 0.5 GB.
Published files cannot be mapped instead: vgg16-397923af.pth has a format that is too old, and
those that can be mapped have another precision and layout.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


def load_shared(
    fd: int, identity: str, build: Callable[[], nn.Module], build_empty: Callable[[], nn.Module]
) -> nn.Module:
    """Return the network with weights that are mapped from a memory file.

    Args:
        fd: descriptor of a file made by ``memfd_create`` with ``MFD_ALLOW_SEALING``, empty at
            first and inherited by all processes.
        identity: describes the weights. If the file holds weights with another identity, this
            process builds its own.
        build: builds the network with its weights on the CPU; called by the first process.
        build_empty: builds the same network without memory for its weights.
    """
    with _exclusive(fd):
        if not _is_written(fd):
            _write(fd, identity, build())
    # By path, because torch cannot map a descriptor. The mapping is private, and its pages are
    # shared until they are written to.
    content = torch.load(f"/proc/self/fd/{fd}", mmap=True, weights_only=True)
    if content["identity"] != identity:
        return build()
    network = build_empty()
    network.load_state_dict(content["state"], assign=True)
    return network.requires_grad_(False)


# fcntl does not exist on Windows, and its F_SEAL_ constants only on Linux. It is imported in the
# functions that use it, so that this module can be imported everywhere.


@contextmanager
def _exclusive(fd: int) -> Iterator[None]:
    """Hold the file's lock. The kernel releases it if the process is killed.

    Not flock(): parent and child hold a flock() together after a fork.
    """
    import fcntl

    fcntl.lockf(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.lockf(fd, fcntl.LOCK_UN)


def _is_written(fd: int) -> bool:
    import fcntl

    return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE)


def _write(fd: int, identity: str, network: nn.Module) -> None:
    import fcntl

    os.ftruncate(fd, 0)  # a process that was killed while writing may have left a part
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "wb", closefd=False) as file:  # closing any descriptor would release the lock
        torch.save({"identity": identity, "state": network.state_dict()}, file)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
