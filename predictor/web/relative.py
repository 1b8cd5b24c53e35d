"""Addresses that are right below any path prefix, whether or not a proxy announces it.

jupyter-server-proxy, for example, serves the app below a prefix and does not say so. All addresses
are therefore relative to the request's own, except below an announced prefix: there they are
absolute, because the proxy may have removed the slash at the prefix's end.
"""

from typing import Any

from flask import request, url_for

from predictor.web.request import SENT_PATH


def address(endpoint: str, **values: Any) -> str:
    """Return the address of an endpoint for a link in the response."""
    path = url_for(endpoint, **values)
    return path if request.script_root else relative(path)


def relative(path: str) -> str:
    """Return a path, which begins with ``/``, relative to the path of the current request.

    From ``/docs``, ``/static/a.js`` is ``static/a.js``; from ``/docs/`` it is ``../static/a.js``.
    """
    depth = request.environ[SENT_PATH].count("/") - 1
    return "../" * depth + path[1:] or "./"
