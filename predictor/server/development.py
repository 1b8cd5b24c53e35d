"""The app for development, and werkzeug's server for it."""

from __future__ import annotations

import logging
import os
import re
import sys
from typing import TYPE_CHECKING

from werkzeug.serving import make_server

from predictor import logs
from predictor.server.address import check
from predictor.server.console import announce, url_of
from predictor.settings import DEVELOPMENT, Settings
from predictor.store.store import Store
from predictor.web import create_app as create_web_app
from predictor.web import flask_run
from predictor.web.request import KEY

if TYPE_CHECKING:
    from flask import Flask


def create_app(settings: Settings | None = None, store: Store | None = None) -> Flask:
    """Build the app for development. Under ``flask run``, also start to load the model.

    Args:
        settings: None reads them from the environment, with the defaults of ``DEVELOPMENT``.
        store: None creates one from the settings.
    """
    settings = settings or Settings.from_env(DEVELOPMENT | os.environ)
    flask_run.require_loopback_for_debugger()
    if settings.management_bind:
        sys.exit("The development server has one address: unset PREDICTOR_MANAGEMENT_BIND.")
    app = create_web_app(settings, store)
    if (address := flask_run.address()) is not None:
        if "WERKZEUG_SERVER_FD" not in os.environ:  # else the process that watches files listens
            check(*address, "--host")
        configure_logs(settings)
        store = app.extensions[KEY]
        announce(store, url_of(*address))
        store.start()
    return app


def configure_logs(settings: Settings) -> None:
    """Write all logs in the app's format, werkzeug's included."""
    logs.configure(settings.log_format)
    logging.getLogger("werkzeug").addFilter(_plain_werkzeug_lines)


def _plain_werkzeug_lines(record: logging.LogRecord) -> bool:
    """Remove colours and line breaks from werkzeug's records, and drop its request lines."""
    text = re.sub(r"\x1b\[\d+m", "", record.getMessage())
    record.msg, record.args = " ".join(text.split()), ()
    return " - - [" not in text


def serve(app: Flask, host: str, port: int) -> None:
    """Serve an app with werkzeug's server until Ctrl-C or SIGTERM.

    This server never has the debugger, whatever FLASK_DEBUG says. Use ``flask run --debug``.
    """
    store: Store = app.extensions[KEY]
    configure_logs(store.settings)
    check(host, port, "--host")
    server = make_server(host, port, app, threaded=True)
    server.log_startup()
    announce(store, url_of(host, server.port))
    store.start()
    server.serve_forever()
