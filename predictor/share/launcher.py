"""The two lines: serve an app in the background, open a tunnel to it and print its URL."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from predictor.settings import FRAME_ANCESTORS
from predictor.share.console import TOKEN_LINE, say, say_no_tunnel, say_tunnel, warn_if_open
from predictor.share.providers import AUTO, choose, find_token
from predictor.share.share import App, Share, classifier_of
from predictor.share.tunnel import Provider, Tunnel, TunnelError, within

OPEN_TIMEOUT_S = 45  # more than any provider's own timeout
# The origins that may show the page in a frame, in Colab and in a notebook on this machine.
COLAB = "https://colab.research.google.com https://*.googleusercontent.com"
JUPYTER = "http://localhost:* http://127.0.0.1:*"

# The shares by the port that was asked for, or by the app's name if that was port 0.
_shares: dict[int | str, Share] = {}


def run_with_ngrok(app: App, provider: str | Provider = AUTO, *, background: bool = False) -> None:
    """Change ``app.run()`` so that it also opens a tunnel and prints the public URL.

    ``app.run()`` accepts the arguments of Flask's ``run()``. It uses ``host`` and ``port`` (the
    next free port if that one is taken), starts neither debugger nor reloader, and ignores the
    rest. With ``background=True``, passed here or there, it returns a :class:`Share` at once.

    Args:
        app: any Flask app.
        provider: one of ``predictor.share.NAMES``; ``auto`` uses the first that can open a
            tunnel. Or a function from the local URL and the ngrok token to a ``Tunnel``.
        background: whether ``app.run()`` returns while the app is being served.

    Raises:
        ValueError: no provider has this name.
    """
    choose(provider)
    flask: Any = app  # its run() is replaced, also by a second call

    def run(
        host: str | None = None,
        port: int | None = None,
        debug: bool | None = None,
        load_dotenv: bool = True,
        *,
        background: bool = background,
        **options: Any,
    ) -> Share | None:
        if os.environ.get("FLASK_RUN_FROM_CLI") == "true":  # `flask run` serves, and Flask warns
            type(flask).run(flask)
            return None
        if debug or app.debug or options.get("use_reloader") or options.get("use_debugger"):
            say("The debugger and the reloader are off, because the app gets a public URL.")
        if background:
            return publish(app, host, port, provider)
        with signals_interrupt(), suppress(KeyboardInterrupt):  # as Flask's own run() does
            publish(app, host, port, provider).wait()
        return None

    flask.run = run


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Make SIGTERM and SIGHUP (a closed terminal) end the block as Ctrl-C does: tunnels close."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def publish(
    app: App,
    host: str | None = None,
    port: int | None = None,
    provider: str | Provider = AUTO,
    token_line: str = TOKEN_LINE,
) -> Share:
    """Serve the app in the background, open a tunnel to it, and print both URLs.

    The share that an earlier call made for the same port is closed first. If no tunnel can be
    opened, the app is served locally, and a message says why.

    Args:
        app: any Flask app.
        host: the host to listen on; by default SERVER_NAME's, or 127.0.0.1.
        port: the port to listen on; by default SERVER_NAME's, or 5000. 0 takes any free port.
        provider: see :func:`run_with_ngrok`.
        token_line: a line of code that makes the app require a token; printed if it does not.

    Raises:
        OSError: the server cannot listen on the host.
        ValueError: no provider has this name, or the port is out of range.
    """
    providers = choose(provider)
    host, port = _address(app, host, port)
    key = port or app.name
    _close_earlier(key, app)
    app.debug = False
    if ancestors := _notebook_origins():
        app.config.setdefault(FRAME_ANCESTORS, ancestors)
    share = _shares[key] = Share(app, host, port)
    try:
        if port not in (0, share.port):
            say(f"Port {port} is taken; using port {share.port} instead.")
        print(f" * Running on {share.local_url}", flush=True)
        if (classifier := classifier_of(app)) is not None:
            classifier.start()
        if _open_tunnel(share, providers):
            warn_if_open(app, token_line)
    except BaseException:
        share.close()
        raise
    return share


def _address(app: App, host: str | None, port: int | None) -> tuple[str, int]:
    """Return the host and the port to listen on, by Flask's rules."""
    name, _, number = (app.config.get("SERVER_NAME") or "").partition(":")
    if port is None:
        port = int(number or 5000)
    if not 0 <= int(port) <= 65535:
        raise ValueError(f"port is {port}; it must be between 0 and 65535.")
    return host or name or "127.0.0.1", int(port)


def _close_earlier(key: int | str, app: App) -> None:
    """Close the share that has this key: the notebook's cell is being run again."""
    if (before := _shares.pop(key, None)) is None:
        return
    before.close()
    classifier = classifier_of(before.app)
    others = [share.app for share in _shares.values() if not share.closed]
    in_use = [classifier_of(one) for one in (app, *others)]
    if classifier is not None and not any(classifier is one for one in in_use):
        # Free the old model's memory, also if it is still loading: a GPU may not hold two.
        classifier.loading.add_done_callback(lambda _: classifier.close())


def _notebook_origins() -> str | None:
    """Return the origins of the notebook that may show the page; None outside a notebook."""
    try:
        import google.colab  # noqa: F401
    except ImportError:
        return JUPYTER if "ipykernel" in sys.modules else None
    return COLAB


def _open_tunnel(share: Share, providers: Mapping[str, Provider]) -> bool:
    """Open a tunnel with the first provider that can, and return whether it is public."""
    token = find_token()
    failures: dict[str, TunnelError] = {}
    for name, provider in providers.items():
        try:
            tunnel = _attempt(provider, share.local_url, token)
        except TunnelError as error:
            failures[name] = error
            continue
        share.connect(tunnel)
        say_tunnel(tunnel, failures)
        return tunnel.public
    say_no_tunnel(share.local_url, failures)
    return False


def _attempt(provider: Provider, address: str, token: str | None) -> Tunnel:
    """Return the provider's tunnel, or raise TunnelError for every failure."""
    try:
        tunnel = within(OPEN_TIMEOUT_S, lambda: provider(address, token), lambda late: late.close())
    except TunnelError:
        raise
    except TimeoutError:
        raise TunnelError(f"it did not answer within {OPEN_TIMEOUT_S} s") from None
    except Exception as error:
        raise TunnelError(f"{type(error).__name__}: {error}") from error
    if not isinstance(tunnel, Tunnel):
        raise TunnelError(f"it returned {tunnel!r} instead of a Tunnel")
    return tunnel
