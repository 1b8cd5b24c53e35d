"""``python app.py``: serve the app for development."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from predictor.cli import model_options
from predictor.errors import SettingsError
from predictor.server.address import host_from_env
from predictor.server.console import announce
from predictor.server.development import configure_logs, create_app, serve
from predictor.settings import unquoted
from predictor.share import NAMES, publish, signals_interrupt
from predictor.web.request import KEY

if TYPE_CHECKING:
    from flask import Flask

TOKEN_LINE = "export PREDICTOR_TOKENS=$(openssl rand -hex 16); echo $PREDICTOR_TOKENS"


def main(arguments: list[str] | None = None) -> None:
    """Serve the app with werkzeug's server."""
    options = _parser().parse_args(arguments)
    model_options.apply(options)
    options.host = options.host or host_from_env()
    try:
        app = create_app()
    except SettingsError as error:
        sys.exit(str(error))
    if options.share:
        _share(app, options.host, options.port, options.share)
    else:
        serve(app, options.host, options.port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Serve the app for development.")
    parser.add_argument("--host", help="default: HOST, or 127.0.0.1")
    port = unquoted(os.environ.get("PORT", "")) or "5000"
    parser.add_argument("--port", default=port, type=_port, help="default: PORT, or 5000")
    parser.add_argument(
        "--share", nargs="?", const="auto", choices=NAMES, metavar="PROVIDER",
        help=f"also open a public URL, with {', '.join(NAMES)} (auto: the first that works)",
    )  # fmt: skip
    model_options.add(parser, serves=True)
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number between 0 and 65535")
    return int(text)


def _share(app: Flask, host: str, port: int, provider: str) -> None:
    """Serve with a public URL until Ctrl-C or SIGTERM, then close the tunnel."""
    store = app.extensions[KEY]
    configure_logs(store.settings)
    try:
        with signals_interrupt():
            shared = publish(app, host, port, provider, TOKEN_LINE)
            store.loading.add_done_callback(
                lambda loading: shared.close() if loading.exception() else None
            )
            announce(store, shared.url)
            shared.wait()
    except OSError as error:
        sys.exit(f"Cannot listen on {host}:{port}: {error.strerror}.")
    except KeyboardInterrupt:
        pass  # before the tunnel was open
