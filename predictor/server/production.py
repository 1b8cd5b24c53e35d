"""Run this app with gunicorn, from any folder."""

import sys

from gunicorn.app import wsgiapp  # type: ignore[import-untyped]

from predictor.resources import resource


def serve(options: list[str]) -> None:
    """Run ``gunicorn wsgi:app`` in this process, with ``gunicorn.conf.py`` and further options.

    Set ``sys.argv``, because gunicorn reads it again at each reload.
    """
    sys.argv = ["gunicorn", "--config", str(resource("gunicorn.conf.py")), *options, "wsgi:app"]
    wsgiapp.run(prog="gunicorn")
