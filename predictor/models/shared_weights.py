"""Keep one copy of each model's weights in memory for several processes. Linux only.

The master makes empty memory files, which all workers inherit. The first process that loads a
model writes its weights to a file, in the precision and layout that the network uses, and all
processes map this file. Otherwise each process would hold its own 0.5 GB. Mapping the published
files would not do: torch cannot map vgg16-397923af.pth, whose format is too old, and the files that
torch can map have another precision and layout.

A process holds a shared lock on each file that it has mapped. The kernel releases the locks of a
process that is killed, and a file without a lock is emptied. Files in /dev/shm would be easier to
name, but Docker and Kubernetes limit it to 64 MB, and they would outlive a killed master.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from torch import Tensor, nn

FILES = 32  # different weights at the same time; the weights of further models are not shared
KEY = 64  # bytes in the index for each file: a SHA-256 of what is loaded, and one of its form

log = logging.getLogger(__name__)


def create_files(count: int = FILES) -> tuple[int, ...]:
    """Return the descriptors of empty memory files: the index, then ``count`` files for weights.

    They are read-only, so that a process cannot damage the weights of the others by mistake.
    """
    return tuple(_create_file() for _ in range(1 + count))


def _create_file() -> int:
    created = os.memfd_create("weights", os.MFD_CLOEXEC)
    try:
        return os.open(f"/proc/self/fd/{created}", os.O_RDONLY)
    finally:
        os.close(created)


def identify(path: Path) -> str:
    """Return what changes when the file or a file of the folder is replaced or written to.

    A hash of the content would read VGG16's 0.5 GB at each start of each process.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    stats = ((file.resolve(), file.stat()) for file in files)
    return repr([(str(file), s.st_ino, s.st_size, s.st_mtime_ns) for file, s in stats])


def load_shared(
    fds: Sequence[int],
    identity: str,
    form: str,
    build: Callable[[], nn.Module],
    build_empty: Callable[[dict[str, Tensor]], nn.Module],
) -> nn.Module:
    """Return the network with weights that are mapped from one of the memory files.

    ``fds`` is from :func:`create_files`. ``identity`` says which weights they are, and ``form``
    everything else on which the tensors depend, such as the precision. The first process calls
    ``build`` for the network with its weights on the CPU; others wait. ``build_empty`` returns the
    network for a state_dict, without memory for weights. If all files are in use, return the
    network from ``build``.
    """
    import fcntl  # not on Windows

    key = sha256(identity.encode()).digest() + sha256(form.encode()).digest()
    with _open(fds[0], "r+b") as index:
        fcntl.flock(index, fcntl.LOCK_EX)
        unused = [n for n in range(1, len(fds)) if empty_if_unused(fds[n])]
        for number in set(range(1, len(fds))).difference(unused):
            if os.pread(index.fileno(), KEY, number * KEY) == key:
                file = _hold(fds[number])
                if os.fstat(file.fileno()).st_size:
                    return _fill(file, fds[number], build_empty)
                unused.append(number)  # its last user has just ended
        network = build()
        if not unused:
            log.warning("More than %s models: the weights of one are not shared.", len(fds) - 1)
            return network
        number = unused[0]
        file = _hold(fds[number])
        os.pwrite(index.fileno(), bytes(KEY), number * KEY)  # until the file is complete
        with _open(fds[number], "r+b") as target:
            _write(network.state_dict(), target)
        os.pwrite(index.fileno(), key, number * KEY)
    return _fill(file, fds[number], build_empty)


def is_shared(fds: Sequence[int], identity: str) -> bool:
    """Return whether a process holds these weights. Wait while another process writes some."""
    import fcntl

    if not fds:
        return False
    digest = sha256(identity.encode()).digest()
    with _open(fds[0]) as index:
        fcntl.flock(index, fcntl.LOCK_EX)
        keys = os.pread(index.fileno(), KEY * len(fds), 0)
    found = [n for n in range(1, len(fds)) if keys[n * KEY :].startswith(digest)]
    return any(not empty_if_unused(fds[number]) for number in found)


def empty_if_unused(fd: int) -> bool:
    """Return the memory of a file that no process holds. Return whether no process holds it."""
    import fcntl

    with _open(fd, "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        file.truncate(0)
        return True


def _open(fd: int, mode: str = "rb") -> BinaryIO:
    """Open the file again. A lock belongs to what is opened; all processes inherited ``fd``."""
    return open(f"/proc/self/fd/{fd}", mode)  # type: ignore[return-value]


def _hold(fd: int) -> BinaryIO:
    import fcntl

    file = _open(fd)
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def _fill(
    file: BinaryIO, fd: int, build_empty: Callable[[dict[str, Tensor]], nn.Module]
) -> nn.Module:
    # A private mapping: its pages are shared until this process writes to them.
    content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    # The last tensor ends the mapping. Before that, an empty file would end the process (SIGBUS).
    weakref.finalize(content, _release, file, fd).atexit = False
    state = _read(content)
    network = build_empty(state)
    # MNASNet requires the version of its class.
    state._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False)


def _release(file: BinaryIO, fd: int) -> None:
    file.close()
    empty_if_unused(fd)


def _write(state: dict[str, Tensor], file: BinaryIO) -> None:
    """Write the tensors, each as it lies in memory, then a table of them and the table's size."""
    import torch

    table = []
    for name, tensor in state.items():
        if torch.empty_like(tensor, device="meta").stride() != tensor.stride():
            tensor = tensor.contiguous()  # it has gaps; a permuted one stays as it is
        offset = file.seek(-(-file.tell() // mmap.PAGESIZE) * mmap.PAGESIZE)
        flat = tensor.as_strided((tensor.numel(),), (1,))
        file.write(flat.view(torch.uint8).numpy().data)
        dtype = str(tensor.dtype).removeprefix("torch.")
        table.append([name, dtype, offset, tensor.shape, tensor.stride()])
    text = json.dumps(table).encode()
    file.write(text + len(text).to_bytes(8, "little"))


def _read(content: mmap.mmap) -> OrderedDict[str, Tensor]:
    import torch

    size = int.from_bytes(content[-8:], "little")
    state = OrderedDict()
    for name, dtype, offset, shape, stride in json.loads(content[-8 - size : -8]):
        flat = torch.empty(0, dtype=getattr(torch, dtype))
        if count := torch.Size(shape).numel():  # frombuffer() refuses 0
            flat = torch.frombuffer(content, dtype=flat.dtype, count=count, offset=offset)
        state[name] = flat.as_strided(shape, stride)
    return state
