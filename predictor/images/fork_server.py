"""The fork server of :mod:`predictor.images.sandbox`, and the processes that decode an image each.

The server only forks, so that no image can change what happens to the next one.
"""

import ctypes
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from select import select

from PIL import Image

from predictor.errors import Overloaded, PredictorError
from predictor.images.decoding import decode_here
from predictor.images.heif import load_library
from predictor.images.sandbox import ENDED, Link

# Bytes of address space for all of Python and its libraries, of which they use 200 MB, and for
# each accepted pixel …
BASE_MEMORY, PIXEL_MEMORY = 2**29, 24
BAND = 1_000_000  # bytes of pixels that are sent at once
NO_NEW_PRIVILEGES = 38  # of prctl

_endings: dict[int, int] = {}  # of the running processes: where to tell their end


def serve() -> None:
    """Fork a process for each request at the standard input, until it ends with the app."""
    control = socket.socket(fileno=0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)  # ends the process
    ended, wake = os.pipe()  # Python writes a byte for each signal that has a handler
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    load_library()
    with suppress(OSError):  # without memory, the system ends a decoder, and not a model
        Path("/proc/self/oom_score_adj").write_text("1000")
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    gc.freeze()
    while True:
        ready, _, _ = select([control.fileno(), ended], [], [])
        if ended in ready:
            os.read(ended, 4096)
            _tell_ends()
        if control.fileno() in ready:
            request, fds, *_ = socket.recv_fds(control, 1, 2)
            if not request:
                return
            if len(fds) == 2:
                _fork(*fds, ended, wake)


def _fork(link: int, ending: int, *own: int) -> None:
    try:
        if not (pid := os.fork()):
            _run(link, ending, *own)
        _endings[pid] = ending
    except OSError:  # too many processes
        os.close(ending)
    os.close(link)


def _tell_ends() -> None:
    """Tell the server about each process that has ended: its exit code and CPU seconds.

    Not in a signal's handler: another signal could interrupt it in the middle.
    """
    while _endings:
        pid, status, usage = os.wait4(-1, os.WNOHANG)
        if not pid:
            return
        code, seconds = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
        with suppress(OSError):
            os.write(_endings[pid], ENDED.pack(code, seconds))
        os.close(_endings.pop(pid))


def _run(link: int, *others: int) -> None:
    """Decode an image in this process, and end it. It keeps none of the other descriptors."""
    code = 1
    try:
        os.dup2(link, 0)  # in place of the control of the fork server
        os.dup2(1, 2)  # nothing that a library says about a file gets into the log
        for fd in (link, *others, *_endings.values()):
            os.close(fd)
        _answer(Link(socket.socket(fileno=0)))
        code = 0
    finally:
        os._exit(code)


def _answer(link: Link) -> None:
    job = link.message()
    limit(job["max_pixels"], job["cpu_s"], job["wait_s"])

    def charge(seconds: float) -> None:
        link.send({"seconds": seconds})
        link.message()

    data = bytes(link.receive(job["size"]))
    try:
        image = decode_here(data, job["max_pixels"], None, charge, job["alpha"])
    except Overloaded:
        text = f"Decoding the image takes more memory than {job['max_pixels']:,} pixels need."
        link.send({"error": "TooLarge", "text": f"{text} Re-save it."})
    except PredictorError as error:
        link.send({"error": type(error).__name__, "text": str(error)})
    else:
        profile = image.info.get("icc_profile", b"")
        answer = {"mode": image.mode, "size": image.size, "profile": len(profile)}
        link.send(answer, chain([profile], _bands(image)))


def _bands(image: Image.Image) -> Iterator[bytes]:
    """Yield the pixels in bands of about ``BAND`` bytes."""
    step = max(1, BAND // (image.width * len(image.mode)))
    for top in range(0, image.height, step):
        box = (0, top, image.width, min(top + step, image.height))
        yield image.crop(box).tobytes()


def limit(max_pixels: int, cpu_s: float, wait_s: float) -> None:
    """Limit this process for ever: its memory, CPU seconds, and seconds; and to no other file."""
    limits = {
        resource.RLIMIT_AS: BASE_MEMORY + PIXEL_MEMORY * max_pixels,
        resource.RLIMIT_CPU: int(cpu_s) + 2,  # if it has stopped the timer, which is more exact
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 0,  # not 3: it may close a standard file and open another
    }
    for name, most in limits.items():
        with suppress(ValueError, OSError):  # there is a lower limit already, or none on macOS
            resource.setrlimit(name, (most, most))
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    signal.setitimer(signal.ITIMER_REAL, wait_s)
