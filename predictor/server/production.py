"""gunicorn with this app, from any folder."""

from __future__ import annotations

import sys

from gunicorn import __main__ as gunicorn  # type: ignore[import-untyped]

from predictor.resources import resource


def serve(options: list[str]) -> None:
    """Run ``gunicorn wsgi:app`` in this process, with ``gunicorn.conf.py`` and further options.

    The command line is replaced because gunicorn reads it again at each reload, and runs it to
    replace itself on SIGUSR2.
    """
    config = str(resource("gunicorn.conf.py"))
    sys.argv = [str(gunicorn.__file__), "--config", config, *options, "wsgi:app"]
    gunicorn.run(prog="gunicorn")
