"""Run a module with what Python has on another system.

``python other_system.py windows predictor photo.jpg`` runs ``python -m predictor photo.jpg``
without the names and modules that Windows lacks. It shows what this package needs, and not that
torch and the other libraries run there.
"""

import importlib
import runpy
import sys

LINUX_ONLY = [
    "fcntl.F_ADD_SEALS",
    "fcntl.F_GET_SEALS",
    "fcntl.F_SEAL_GROW",
    "fcntl.F_SEAL_SHRINK",
    "fcntl.F_SEAL_WRITE",
    "os.memfd_create",
    "os.posix_fallocate",
    "os.sched_getaffinity",
    "os.sched_setaffinity",
]
NOT_ON_WINDOWS = [
    "os.chown",
    "os.fork",
    "os.getuid",
    "os.geteuid",
    "os.killpg",
    "os.register_at_fork",
    "os.wait4",
    "signal.SIGALRM",
    "signal.SIGHUP",
    "signal.SIGKILL",
    "signal.SIGPROF",
    "signal.setitimer",
    "socket.AF_UNIX",
    "socket.MSG_DONTWAIT",
    "socket.recv_fds",
    "socket.send_fds",
]
NAMES = {"macos": LINUX_ONLY, "windows": LINUX_ONLY + NOT_ON_WINDOWS}
MODULES = {"macos": [], "windows": ["fcntl", "grp", "gunicorn", "pwd", "resource", "termios"]}


def become(system):
    """Take away what a system does not have."""
    if system == "windows":  # these choose their own code by sys.platform
        importlib.import_module("filelock")
        importlib.import_module("torch")
    for name in NAMES[system]:
        module, _, attribute = name.partition(".")
        delattr(importlib.import_module(module), attribute)
    for module in MODULES[system]:
        sys.modules[module] = None  # importing it raises ImportError
    sys.addaudithook(without_proc)


def without_proc(event, args):
    """Let opening a file below /proc fail."""
    if event in ("open", "os.listdir") and str(args[0]).startswith("/proc"):
        raise FileNotFoundError(args[0])


if __name__ == "__main__":
    _, system, module, *sys.argv[1:] = sys.argv
    become(system)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
