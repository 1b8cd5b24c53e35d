"""One set of weights for several processes: the first lays them out, all of them map them.

A published file cannot be mapped as it is (its format is older than archives), and what can is
not in the precision and the layout that are served; without this, every process would hold its
own 0.5 GB.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

IMMUTABLE = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK


def share(
    fd: int, identity: str, build: Callable[[], nn.Module], build_empty: Callable[[], nn.Module]
) -> nn.Module:
    """The network, its weights mapped from memory that other processes map, too.

    Args:
        fd: of a file that ``memfd_create`` made, sealable and empty, inherited by all of them.
        identity: what the weights are; a process that serves others keeps its own.
        build: the network as it is served, on the CPU; called by the first process.
        build_empty: the same network without memory for its weights.
    """
    with _alone(fd):
        if not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE:
            _write(fd, identity, build())
    # By path, because torch maps no descriptor; privately mapped, pages are shared until written.
    content = torch.load(f"/proc/self/fd/{fd}", mmap=True, weights_only=True)
    if content["identity"] != identity:
        return build()
    network = build_empty()
    network.load_state_dict(content["state"], assign=True)
    return network.requires_grad_(False)


@contextmanager
def _alone(fd: int) -> Iterator[None]:
    """Others wait here; the lock falls with its process, so a killed one leaves no trace of it.

    Not flock(): its locks belong to what a fork shares.
    """
    fcntl.lockf(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.lockf(fd, fcntl.LOCK_UN)


def _write(fd: int, identity: str, network: nn.Module) -> None:
    os.ftruncate(fd, 0)  # what a process that was killed while writing has left
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "wb", closefd=False) as file:  # closing any descriptor would drop the lock
        torch.save({"identity": identity, "state": network.state_dict()}, file)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, IMMUTABLE)
