"""The address to listen on."""

import errno
import logging
import os
import socket
import sys
from ipaddress import ip_address

from predictor.settings import PREFIX, unquoted

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
MANAGEMENT_BIND = f"{PREFIX}MANAGEMENT_BIND"


def host_from_env() -> str:
    """Return the address in HOST, or 127.0.0.1 if HOST is empty or is not an address at all.

    Other programs set HOST, too: conda's compilers set it to ``x86_64-conda-linux-gnu``. Then log a
    warning. An IP address is returned as it is: :func:`check` reports one of another machine.
    """
    host = unquoted(os.environ.get("HOST", "")).removeprefix("[").removesuffix("]")
    if not host:
        return LOOPBACK
    try:
        ip_address(host)
    except ValueError:
        if (error := bind_error(host, 0)) is not None:
            log.warning(
                "HOST=%r is not an address of this machine (%s). The server listens on %s. To be"
                " reached from other machines, set HOST=0.0.0.0.",
                host, error.strerror, LOOPBACK,
            )  # fmt: skip
            return LOOPBACK
    return host


def bind_error(host: str, port: int) -> OSError | None:
    """Return the error if this process cannot listen on an address, else None."""
    if host.startswith("unix://"):
        return None
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:  # also on a machine without IPv6
        return error
    except TypeError:  # no name of a host, such as bytes that are not UTF-8
        return OSError(errno.EINVAL, "Invalid name")
    return None


def check(host: str, port: int, option: str) -> None:
    """Exit with a message if this process cannot listen on an address.

    ``option`` is the command line option that can replace HOST, such as ``--bind``, or the setting
    that has both the address and the port.
    """
    if (error := bind_error(host, port)) is None:
        return
    is_own = option == MANAGEMENT_BIND
    names = option if is_own else f"HOST or {option}"
    if error.errno == errno.EADDRINUSE:
        other = 5002 if port == 5001 else 5001
        advice = f"Set {option} to another." if is_own else f"Choose another: PORT={other}."
        sys.exit(f"Port {port} on {host} is taken. {advice}")
    sys.exit(
        f"Cannot listen on {host}:{port}: {error.strerror}. Set {names} to an address of this"
        " machine."
    )
