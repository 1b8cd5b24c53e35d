"""``predictor serve``: run ``gunicorn wsgi:app``, or werkzeug's server on Windows."""

import argparse
import os
import sys

from predictor.errors import SettingsError
from predictor.settings import Settings, unquoted

NOTE = "NOTE: gunicorn does not run on Windows. This is werkzeug's server, for development only."


def run(options: argparse.Namespace) -> int:
    """Serve until the process is ended. Return the exit status."""
    if sys.platform == "win32":
        return _serve_on_windows(options.further)
    # gunicorn reads this number when it is imported, and a bad one would be a traceback.
    workers = unquoted(os.environ.pop("WEB_CONCURRENCY", ""))
    from predictor.server import production

    if workers:  # gunicorn.conf.py checks it
        os.environ["WEB_CONCURRENCY"] = workers
    production.serve(options.further)
    return 0


def _serve_on_windows(further: list[str]) -> int:
    from predictor.server.address import host_from_env
    from predictor.server.development import create_app, serve

    host, port = host_from_env(), unquoted(os.environ.get("PORT", "")) or "5000"
    if further:
        return _fail(f"gunicorn does not run on Windows, so remove its options: {further}.")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        return _fail(f"PORT={port!r} is not a whole number between 0 and 65535.")
    try:
        app = create_app(Settings.from_env())
    except SettingsError as error:
        return _fail(str(error))
    print(NOTE, file=sys.stderr)
    serve(app, host, int(port))
    return 0


def _fail(message: str) -> int:
    print(f"The server cannot start. {message}", file=sys.stderr)
    return 2
