"""Decode an image in a process of its own, with limits of processor time, memory and files.

The decoders of rare formats are large and little tested: a few bytes can make them compute for
minutes or ask for gigabytes. So a fork server, which has imported them and never reads an image,
forks a process for each image (:mod:`predictor.images.fork_server`). The kernel ends a process
that exceeds its limits. What it sends is checked, because a hostile image may control it.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from time import monotonic, thread_time
from typing import Any

import numpy as np
from PIL import Image

from predictor.errors import (
    DamagedImage,
    OutOfTime,
    Overloaded,
    PredictorError,
    TooLarge,
    UnsupportedImage,
)
from predictor.images.limits import MAX_COLUMNS
from predictor.images.profile import MAX_PROFILE, is_usable

# Windows has neither: there, which is for development, the server itself decodes all images.
AVAILABLE = hasattr(os, "fork") and hasattr(socket, "send_fds") and bool(sys.executable)
# With the path of this process, so that the other imports the same packages.
START = (
    "import sys; sys.path[:] = sys.argv[1:];"
    " from predictor.images.fork_server import serve; serve()"
)
# Where libraries are found. Other variables, which may be tokens and keys, are not passed on.
ENVIRON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")
# A process hangs if it takes longer than this, and so much more for each CPU second.
WAIT_S, WAIT_PER_CPU_S = 10, 10
START_S = 10  # to start the fork server, which takes 0.3 CPU seconds
# CPU seconds, for less no process is started: timers have steps of up to 0.01 s, and a process that
# decodes nothing takes as long.
LEAST_S = 0.02
ERRORS = {kind.__name__: kind for kind in (DamagedImage, TooLarge, UnsupportedImage)}
MODES = ("RGB", "RGBA", "CMYK")
MAX_MESSAGE = 10_000  # bytes
LENGTH, ENDED = struct.Struct("!I"), struct.Struct("!id")  # exit code and CPU seconds
# What reading invalid answers raises, or none.
INVALID = (OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError)

log = logging.getLogger(__name__)
_lock = threading.Lock()  # guards the fork server
_server: tuple[subprocess.Popen[bytes], socket.socket] | None = None
_used = threading.local()


class Link:
    """A connection between the server and a process that decodes an image."""

    def __init__(self, connection: socket.socket, seconds: float | None = None) -> None:
        """Wait for at most so many seconds in all; after that, each method raises TimeoutError."""
        self._socket = connection
        self._deadline = None if seconds is None else monotonic() + seconds

    def send(self, message: dict[str, Any], contents: Iterable[bytes] = ()) -> None:
        """Send a message, and bytes behind it."""
        text = json.dumps(message).encode()
        for part in chain([LENGTH.pack(len(text)) + text], contents):
            self._limit()
            self._socket.sendall(part)

    def message(self) -> dict[str, Any]:
        """Receive a message, but not the bytes behind it; raise ValueError if it is not valid."""
        (size,) = LENGTH.unpack(self.receive(LENGTH.size))
        if size > MAX_MESSAGE:
            raise ValueError("A message is too long.")
        return dict(json.loads(bytes(self.receive(size))))

    def receive(self, size: int) -> memoryview:
        """Receive so many bytes; raise EOFError if the connection ends."""
        # The kernel fills the memory, while other threads run: bytearray would take 0.13 s for the
        # zeros of 49 megapixels, in which none does.
        left = content = np.empty(size, np.uint8).data
        while left:
            self._limit()
            if not (count := self._socket.recv_into(left)):
                raise EOFError
            left = left[count:]
        return content

    def _limit(self) -> None:
        if self._deadline is not None:
            self._socket.settimeout(max(0.001, self._deadline - monotonic()))


def thread_seconds() -> float:
    """Return the CPU seconds of this thread, and of the processes that decoded images for it."""
    return thread_time() + getattr(_used, "seconds", 0.0)


def decode(
    data: bytes, max_pixels: int, charge: Callable[[float], None], alpha: bool, most_s: float
) -> Image.Image:
    """Decode an image like :func:`predictor.images.decoding.decode`, in at most ``most_s``.

    Raises:
        OutOfTime: the CPU seconds are over, or fewer than :data:`LEAST_S`.
        Overloaded: no process can be started, the system ended it, or it hangs.
        DamagedImage: the decoder crashed.
    """
    if most_s < LEAST_S:
        raise _failure(-signal.SIGXCPU, most_s)
    wait_s = WAIT_S + WAIT_PER_CPU_S * most_s
    job: dict[str, float] = {"size": len(data), "max_pixels": max_pixels, "alpha": alpha}
    job |= {"cpu_s": most_s, "wait_s": wait_s}
    # No image ends the fork server. One that is killed may fail twice: while it ends, and after.
    for _ in range(3):
        began, (link, ending) = monotonic(), _start_process()
        exit_code, used_s = None, 0.0
        try:
            with link:
                return _converse(Link(link, wait_s + START_S), job, data, charge)
        except INVALID as error:
            log.debug("No answer from the process that decodes an image: %r", error)
        finally:
            exit_code, used_s = _wait_for_end(ending)
            _used.seconds = getattr(_used, "seconds", 0.0) + (used_s or monotonic() - began)
        if exit_code is not None:
            raise _failure(exit_code, most_s)
    raise Overloaded("The server cannot start a process to decode the image. Try again.")


def _converse(
    link: Link, job: dict[str, float], data: bytes, charge: Callable[[float], None]
) -> Image.Image:
    """Send an image to a process, have the estimated cost charged, and return the pixels."""
    link.send(job, [data])
    answer = link.message()
    if "seconds" in answer:
        charge(max(0.0, float(answer["seconds"])))
        link.send({})
        answer = link.message()
    if "error" in answer:
        raise ERRORS[answer["error"]](str(answer["text"]))
    mode, (width, height), size = (answer[key] for key in ("mode", "size", "profile"))
    is_valid = 0 < min(width, height) <= max(width, height) <= MAX_COLUMNS
    if (
        mode not in MODES
        or not is_valid
        or width * height > job["max_pixels"]
        or size > MAX_PROFILE
    ):
        raise ValueError(f"{mode}, {width} × {height}")
    profile = bytes(link.receive(size))
    image = Image.frombytes(mode, (width, height), link.receive(width * height * len(mode)))
    if is_usable(profile, "CMYK" if mode == "CMYK" else "L"):
        image.info["icc_profile"] = profile
    return image


def _failure(exit_code: int, most_s: float) -> PredictorError:
    """Return the error for a process that has ended without an answer."""
    if exit_code in (-signal.SIGPROF, -signal.SIGXCPU):
        return OutOfTime(
            f"Decoding the image took more than {most_s:.2f} s of processor time, which is what is"
            " accepted here. Save it as a JPEG, make it smaller, or send fewer images at once."
        )
    if exit_code == -signal.SIGALRM:
        return Overloaded("Decoding the image took too long. The server is busy. Retry later.")
    if exit_code == -signal.SIGKILL:
        return Overloaded("The system ended the decoding, perhaps for lack of memory. Try again.")
    log.warning("The process that decoded an image ended with exit code %d.", exit_code)
    return DamagedImage(
        "The decoder failed on the file, which is damaged or an unsupported variant. Send the"
        " original again, or save it anew as JPEG."
    )


def _start_process() -> tuple[socket.socket, socket.socket]:
    """Have a process forked, and return a connection to it and one for the news of its end.

    If the fork server has ended, they are closed at the other side.
    """
    try:
        (link, its_link), (ending, its_ending) = socket.socketpair(), socket.socketpair()
    except OSError as error:  # too many files are open
        raise Overloaded("The server cannot decode the image now. Try again.") from error
    with its_link, its_ending, _lock:
        try:
            socket.send_fds(_fork_server(), [b"f"], [its_link.fileno(), its_ending.fileno()])
        except OSError as error:
            log.warning("The fork server of the image decoders has ended: %s", error)
            close()
    return link, ending


def _wait_for_end(ending: socket.socket) -> tuple[int | None, float]:
    """Return a process' exit code and CPU seconds; None and 0 if the fork server has ended."""
    with ending:
        ending.settimeout(START_S)
        try:
            news = ending.recv(ENDED.size)
        except TimeoutError:  # it may be compromised, and then ignores its timer
            return -signal.SIGALRM, 0
        return ENDED.unpack(news) if len(news) == ENDED.size else (None, 0)


def _fork_server() -> socket.socket:
    """Return the connection to the fork server, which is started if none runs."""
    global _server
    if _server is None or _server[0].poll() is not None:
        close()
        ours, its = socket.socketpair()
        ours.settimeout(START_S)
        environ = {name: os.environ[name] for name in ENVIRON if name in os.environ}
        environ["OPENBLAS_NUM_THREADS"] = "1"  # a process that forks has one thread
        # A worker that has changed its user may be unable to find its own Python.
        program = sys.executable if os.access(sys.executable, os.X_OK) else "/proc/self/exe"
        command = [program, "-S", "-c", START, str(Path(__file__).parents[2]), *sys.path]
        with its:
            # A session of its own: a Ctrl-C in the terminal is for the server only.
            process = subprocess.Popen(
                command,
                stdin=its.fileno(),
                stdout=subprocess.DEVNULL,
                env=environ,
                start_new_session=True,
            )
        _server = process, ours
    return _server[1]


@atexit.register
def close() -> None:
    """End the fork server, if it runs. The next image starts another."""
    global _server
    if _server is not None:
        process, control = _server
        _server = None
        control.close()
        process.kill()
        process.wait()
