"""The app: where the settings, the classifier and the web meet.

``python app.py`` and ``flask --app app run`` are for development; ``wsgi.py`` is for production.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from concurrent.futures import Future
from ipaddress import ip_address

import click
from flask import Flask
from flask.helpers import get_debug_flag
from werkzeug.serving import is_running_from_reloader

from predictor import logs, web
from predictor.engine.classifier import Classifier, Engine
from predictor.errors import SettingsError
from predictor.settings import Settings

log = logging.getLogger(__name__)

# Where the 528 MB of VGG16 cannot be had, a small model stands in and says so; a production
# start never changes the model by itself.
DEVELOPMENT = {"PREDICTOR_FALLBACK_MODEL": "efficientnet_lite0"}
TOKEN_LINE = "export PREDICTOR_TOKENS=$(openssl rand -hex 16); echo $PREDICTOR_TOKENS"
CANNOT_SERVE = 4  # gunicorn's "app failed to load": it stops instead of trying for ever


def create_app(settings: Settings | None = None, classifier: Classifier | None = None) -> Flask:
    """Build the application.

    Args:
        settings: development's when not given.
        classifier: to do without a real model; it loads at once under ``flask run``, and
            otherwise when it is started or first asked.
    """
    settings = settings or Settings.from_env(DEVELOPMENT | os.environ)
    classifier = classifier or Classifier(settings)
    _refuse_strangers_the_debugger()
    app = Flask(__name__)
    web.register(app, classifier)
    if (url := _flask_run_url()) is not None:
        _configure_logs(settings)
        announce(classifier, url)
        classifier.start()
    return app


def _flask_run_url() -> str | None:
    """Where `flask run` serves; None in the second process that only watches files for it."""
    context = click.get_current_context(silent=True)
    if context is None or context.info_name != "run":
        return None
    reload = context.params.get("reload")
    watched = get_debug_flag() if reload is None else reload
    if watched and not is_running_from_reloader():
        return None
    return f"http://{context.params.get('host')}:{context.params.get('port')}"


def _refuse_strangers_the_debugger() -> None:
    """Werkzeug's debugger runs code; its guards are a PIN and a header that anybody can send."""
    context = click.get_current_context(silent=True)
    if context is None or context.info_name != "run":
        return
    debugger, host = context.params.get("debugger"), context.params.get("host") or "127.0.0.1"
    if (get_debug_flag() if debugger is None else debugger) and not _is_here(host):
        sys.exit(
            f"The debugger is not served on {host}, where others may reach it. Leave out --debug,"
            " or --host."
        )


def _is_here(host: str) -> bool:
    """Whether only this machine reaches an address to listen on."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.startswith("unix://")


def announce(classifier: Classifier, url: str, status: int = CANNOT_SERVE) -> None:
    """Say on the console what is served once it is; if it cannot be, stop: the log says why."""

    def report(loading: Future[Engine]) -> None:
        if loading.exception() is not None:
            os._exit(status)  # in the loader's thread, where sys.exit ends only the thread
        engine = loading.result()
        fields = {"url": url, "model": engine.info.public()}
        log.info("Ready at %(url)s", fields, extra={"block": describe(engine, url)})

    classifier.loading.add_done_callback(report)


def describe(engine: Engine, url: str) -> str:
    """What is served, for the console."""
    info = engine.info
    threads = "1 thread" if info.threads == 1 else f"{info.threads} threads"
    notice = f"\n  NOTE       {info.notice}\n" if info.notice else ""
    return f"""
Ready at {url}
{notice}
  model      {info.name}, {info.parameters:,} parameters, {info.classes} classes
  weights    {info.weights}
  device     {info.device}, {info.precision}, {threads}
  try        curl -F file=@photo.jpg {url}/predict
"""


def _configure_logs(settings: Settings) -> None:
    logs.configure(settings.log_format)
    logging.getLogger("werkzeug").addFilter(_tame)


def _tame(record: logging.LogRecord) -> bool:
    """Let werkzeug speak without colours and line breaks, and not of each request."""
    text = re.sub(r"\x1b\[\d+m", "", record.getMessage())
    record.msg, record.args = " ".join(text.split()), ()
    return " - - [" not in text


def main() -> None:
    """Serve for development, with werkzeug's own server."""
    from predictor.share import NAMES  # here: production imports this file and shares nothing

    parser = argparse.ArgumentParser(description="Serve the app for development.")
    parser.add_argument("--host", default=os.environ.get("HOST", "127.0.0.1"))
    parser.add_argument("--port", default=os.environ.get("PORT", "5000"), type=_port)
    parser.add_argument(
        "--share", nargs="?", const="auto", choices=NAMES, metavar="PROVIDER",
        help=f"with a public address, too; by one of {', '.join(NAMES)} (the first: whichever can)",
    )  # fmt: skip
    options = parser.parse_args()
    try:
        app = create_app()
    except SettingsError as error:
        sys.exit(str(error))
    classifier = app.extensions["classifier"]
    _configure_logs(classifier.settings)
    if options.share:
        return _share(app, options.host, options.port, options.share)
    announce(classifier, f"http://{options.host}:{options.port}")
    classifier.start()
    # Not what FLASK_DEBUG says: whoever wants the debugger has `flask run --debug`.
    app.run(options.host, options.port, debug=False, threaded=True)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 65535")
    return int(text)


def _share(app: Flask, host: str, port: int, provider: str) -> None:
    """Serve with a public address, until Ctrl-C or SIGTERM: no tunnel outlives the app."""
    from predictor.share import publish, signals_interrupt

    try:
        with signals_interrupt():
            shared = publish(app, host, port, provider, TOKEN_LINE)
            classifier = app.extensions["classifier"]
            classifier.loading.add_done_callback(
                lambda loading: shared.close() if loading.exception() else None
            )
            announce(classifier, shared.url)
            shared.wait()
    except OSError as error:
        sys.exit(f"Nobody can listen on {host}:{port} ({error.strerror}).")
    except KeyboardInterrupt:
        pass  # so early that the tunnel was not open yet


if __name__ == "__main__":
    main()
