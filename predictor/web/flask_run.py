"""Read the options of ``flask run`` from its command line."""

import os
import sys
from ipaddress import ip_address
from typing import Any

import click
from flask.helpers import get_debug_flag


def address() -> tuple[str, int] | None:
    """Return the host and port on which this process serves.

    Outside ``flask run``, and in its reloader's parent process, which serves nothing, return None.
    """
    options = _options()
    if options is None:
        return None
    reload = options.get("reload")
    watched = get_debug_flag() if reload is None else reload
    if watched and os.environ.get("WERKZEUG_RUN_MAIN") != "true":
        return None
    return options.get("host") or "127.0.0.1", int(options.get("port", 5000))


def require_loopback_for_debugger() -> None:
    """Exit if Werkzeug's debugger would be reachable from other machines.

    The debugger executes code. It is protected only by a PIN and a header that any client can set.
    """
    options = _options()
    if options is None:
        return
    debugger, host = options.get("debugger"), options.get("host") or "127.0.0.1"
    if (get_debug_flag() if debugger is None else debugger) and not is_loopback(host):
        sys.exit(
            f"The debugger cannot be served on {host}, where other machines may reach it. Remove"
            " --debug or --host."
        )


def _options() -> dict[str, Any] | None:
    context = click.get_current_context(silent=True)
    return context.params if context is not None and context.info_name == "run" else None


def is_loopback(host: str) -> bool:
    """Return whether a server that listens on ``host`` can be reached only from this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.startswith("unix://")
