"""Serve an app in the background, open a tunnel to it and print the public URL."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from predictor.settings import FRAME_ANCESTORS
from predictor.share.advice import TOKEN_PAGE
from predictor.share.providers import AUTO, TOKEN_VARIABLE, choose, find_token
from predictor.share.share import Share, store_of
from predictor.share.tunnel import Missing, Provider, Tunnel, TunnelError, within

if TYPE_CHECKING:
    from flask import Flask

OPEN_TIMEOUT_S = 45  # more than any provider's own timeout
# The origins that may show the page in a frame, in Colab and in a notebook on this machine.
COLAB = "https://colab.research.google.com https://*.googleusercontent.com"
JUPYTER = "http://localhost:* http://127.0.0.1:*"
REMEDY = (
    f"To get a public URL, copy the token of a free account from {TOKEN_PAGE}, set it as"
    f" {TOKEN_VARIABLE} (in Colab: as a secret of this name, with notebook access) and run this"
    " again. Or install cloudflared on the PATH."
)
WARNING = "Anyone who has this URL can use the app."
TOKEN_LINE = (
    'import os, secrets; os.environ["PREDICTOR_TOKENS"] = token = secrets.token_hex(16);'
    " print(token)"
)

# The key is the requested port. For port 0 it is the app's name.
_shares: dict[int | str, Share] = {}


def run_with_ngrok(
    app: Flask, provider: str | Provider = AUTO, *, background: bool = False
) -> None:
    """Change ``app.run()`` so that it also opens a tunnel and prints the public URL.

    ``app.run()`` accepts the arguments of Flask's ``run()``. It uses ``host`` and ``port`` (if that
    is taken, the next free port) and ignores the others. It starts neither debugger nor reloader.
    With ``background=True``, passed to either function, it returns a :class:`Share` at once.

    ``provider`` is a name in ``predictor.share.NAMES``, or a function that takes the local URL and
    the ngrok token and returns a ``Tunnel``. ``auto`` uses the first provider that works.

    Raises:
        ValueError: no provider has this name.
    """
    choose(provider)

    def run(
        host: str | None = None, port: int | None = None, debug: bool | None = None,
        load_dotenv: bool = True, *, background: bool = background, **options: Any,
    ) -> Share | None:  # fmt: skip
        if os.environ.get("FLASK_RUN_FROM_CLI") == "true":  # `flask run` serves, and Flask warns
            type(app).run(app)
            return None
        if debug or app.debug or options.get("use_reloader") or options.get("use_debugger"):
            _say("The debugger and the reloader are off, because the app gets a public URL.")
        if background:
            return publish(app, host, port, provider)
        with signals_interrupt(), suppress(KeyboardInterrupt):  # as Flask's own run() does
            publish(app, host, port, provider).wait()
        return None

    app.run = run  # type: ignore[assignment, method-assign]


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Make SIGTERM and SIGHUP (a closed terminal) act like Ctrl-C, so that tunnels are closed."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:  # not on Windows
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def publish(
    app: Flask, host: str | None = None, port: int | None = None,
    provider: str | Provider = AUTO, token_line: str = TOKEN_LINE,
) -> Share:  # fmt: skip
    """Serve the app in the background, open a tunnel to it, and print both URLs.

    First close the share that an earlier call made for the same port. If no tunnel can be opened,
    serve the app only locally, and print why. By default host and port are those of SERVER_NAME,
    or else 127.0.0.1 and 5000. Port 0 means any free port. :func:`run_with_ngrok` describes
    ``provider``. ``token_line`` is a line of code that makes the app require a token. It is printed
    if the app requires none.

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
            _say(f"Port {port} is taken; using port {share.port} instead.")
        print(f" * Running on {share.local_url}", flush=True)
        if (store := store_of(app)) is not None:
            store.start()
        if _open_tunnel(share, providers):
            _warn_if_open(app, token_line)
    except BaseException:
        share.close()
        raise
    return share


def _address(app: Flask, host: str | None, port: int | None) -> tuple[str, int]:
    """Return the host and the port to listen on, by Flask's rules."""
    name, _, number = (app.config.get("SERVER_NAME") or "").partition(":")
    port = int(number or 5000) if port is None else int(port)
    if not 0 <= port <= 65535:
        raise ValueError(f"port is {port}; it must be between 0 and 65535.")
    return host or name or "127.0.0.1", port


def _close_earlier(key: int | str, app: Flask) -> None:
    """Close the share that has this key: the notebook's cell is being run again."""
    if (before := _shares.pop(key, None)) is None:
        return
    before.close()
    store = store_of(before.app)
    others = [share.app for share in _shares.values() if not share.closed]
    if store is not None and store not in map(store_of, (app, *others)):
        # Free the old model's memory, even if the model is still loading: two may not fit on a GPU.
        store.loading.add_done_callback(lambda _: store.close())


def _notebook_origins() -> str | None:
    """Return the notebook's origins, which may frame the page, or None outside a notebook."""
    try:
        import google.colab  # noqa: F401
    except ImportError:
        return JUPYTER if "ipykernel" in sys.modules else None
    return COLAB


def _open_tunnel(share: Share, providers: Mapping[str, Provider]) -> bool:
    """Open a tunnel with the first provider that works, print it, return whether it is public."""
    token = find_token()
    failures: dict[str, TunnelError] = {}
    for name, provider in providers.items():
        try:
            tunnel = _attempt(provider, share.local_url, token)
        except TunnelError as error:
            failures[name] = error
            continue
        share.connect(tunnel)
        _say_tunnel(tunnel, failures)
        return tunnel.public
    reasons = "; ".join(f"{name}: {failure}" for name, failure in failures.items())
    missing = len(failures) > 1 and all(isinstance(f, Missing) for f in failures.values())
    remedy = f" {REMEDY}" if missing else ""
    _say(f"No public URL ({reasons}). The app still runs at {share.local_url}.{remedy}")
    return False


def _attempt(provider: Provider, address: str, token: str | None) -> Tunnel:
    """Return the provider's tunnel. Raise TunnelError for any failure."""
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


def _say_tunnel(tunnel: Tunnel, failures: Mapping[str, TunnelError]) -> None:
    """Print where the tunnel leads.

    Before that, print why each earlier provider failed, except those that are not available here.
    """
    for name, failure in failures.items():
        if not isinstance(failure, Missing):
            _say(f"{name} could not be used: {failure}.")
    if tunnel.public:
        print(f" * Running on {tunnel.url}", flush=True)
    else:
        _say(f"Colab shows the app below, to you only and while this notebook is open. {REMEDY}")


def _warn_if_open(app: Flask, token_line: str) -> None:
    """If the app requires no token, print a warning, and a line of code that requires one."""
    if (store := store_of(app)) is None:
        _say(WARNING)
    elif not store.settings.all_tokens:
        _say(f"{WARNING} To require a token, run this line before the app starts:")
        print(f"   {token_line}", flush=True)


def _say(text: str) -> None:
    """Print a paragraph on standard output. A notebook shows it, but may not show the log."""
    paragraph = textwrap.fill(
        text, 96, initial_indent=" * ", subsequent_indent="   ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    print(paragraph, flush=True)
