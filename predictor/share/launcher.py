"""The two lines: serve the app in a thread, open a tunnel to it, say where it is."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from predictor.engine.classifier import Classifier
from predictor.server.background import BackgroundServer
from predictor.share.advice import TOKEN_PAGE
from predictor.share.providers import AUTO, TOKEN, choose, find_token
from predictor.share.tunnel import Missing, Provider, Tunnel, TunnelError, within

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

OPEN_S, CLOSE_S = 45, 10  # more than any provider takes by itself
REMEDY = (
    f"For an address that others can use, get a free token at {TOKEN_PAGE} and set it as {TOKEN}"
    " (in Colab: as a secret of that name, with notebook access), or put cloudflared on the PATH;"
    " then run this again."
)
WARNING = "Whoever has this address can use the app."
TOKEN_LINE = (
    'import os, secrets; os.environ["PREDICTOR_TOKENS"] = token = secrets.token_hex(16);'
    " print(token)"
)
# Who may show the page in a frame. Elsewhere than in Colab a notebook is a page of this machine.
COLAB = "https://colab.research.google.com https://*.googleusercontent.com"
JUPYTER = "http://localhost:* http://127.0.0.1:*"


class App(Protocol):
    """A Flask app, as far as it matters here."""

    config: Any
    debug: Any
    extensions: dict[str, Any]

    @property
    def name(self) -> str:
        """What it is called."""

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, as WSGI has it."""


class Share:
    """An app that is served, and the tunnel to it if there is one.

    Attributes:
        local_url: its address on this machine.
        public_url: its address for everybody; None where no tunnel could be opened, and with
            Colab's own proxy.
    """

    def __init__(self, app: App, host: str, port: int) -> None:
        """Begin to serve, at the port or the next one that is free.

        Raises:
            OSError: nobody can listen there.
        """
        self.app = app
        options: dict[str, Any] = {}
        if (classifier := _classifier(app)) is not None:  # ours has a log of its own
            options = {"timeout_s": classifier.settings.receive_timeout_s, "quiet": True}
        self._server = BackgroundServer(app, host, port, **options)
        self.local_url = self._server.url
        self.public_url: str | None = None
        self._tunnel: Tunnel | None = None
        self._closed = threading.Event()
        self._closing = threading.Lock()

    def __repr__(self) -> str:
        """What a notebook shows of a cell that ends with ``app.run()``."""
        return f"<Share {self.url}>"

    @property
    def url(self) -> str:
        """The address to give away: the public one if there is one."""
        return self.public_url or self.local_url

    @property
    def port(self) -> int:
        """The port that it has got."""
        return self._server.port

    def connect(self, tunnel: Tunnel) -> None:
        """Have this tunnel, and close it at the end."""
        self._tunnel = tunnel
        if tunnel.public:
            self.public_url = self.app.config["PUBLIC_URL"] = tunnel.url

    def wait(self) -> None:
        """Serve until somebody closes it or interrupts; then close the tunnel, too."""
        try:
            self._closed.wait()
        except KeyboardInterrupt:
            _say("Stopped.")
        finally:
            self.close()

    def close(self) -> None:
        """Close the tunnel, and answer nobody any more; again, it does nothing."""
        with self._closing:
            if self._closed.is_set():
                return
            try:
                if self._tunnel is not None:
                    with suppress(Exception):  # it has ended already, or ends with this process
                        within(CLOSE_S, self._tunnel.close)
            finally:
                if self.app.config.get("PUBLIC_URL") == self.public_url:  # or it has another
                    self.app.config.pop("PUBLIC_URL", None)
                self._server.close()
                self._closed.set()


# By the port that was asked for; of those that asked for any, by the app's name.
_shares: dict[int | str, Share] = {}


def run_with_ngrok(app: App, provider: str | Provider = AUTO, *, background: bool = False) -> None:
    """Have ``app.run()`` give the app a public address, too.

    ``app.run()`` takes what it takes in Flask; a port that is taken becomes the next free one,
    there is neither a debugger nor a reloader, and what else it is told is of no account. With
    ``background=True``, here or there, it returns a :class:`Share` at once.

    Args:
        app: any Flask app.
        provider: who opens the tunnel, one of ``predictor.share.NAMES``; ``auto``: the first
            that can. Or a function from the local address and ngrok's token to a ``Tunnel``.
        background: whether ``app.run()`` returns while the app is served.

    Raises:
        ValueError: there is no provider of that name.
    """
    choose(provider)
    flask: Any = app  # whose run() is replaced, once more when this is called again

    def run(
        host: str | None = None,
        port: int | None = None,
        debug: bool | None = None,
        load_dotenv: bool = True,
        *,
        background: bool = background,
        **options: Any,
    ) -> Share | None:
        if os.environ.get("FLASK_RUN_FROM_CLI") == "true":  # `flask run` serves, and Flask says so
            type(flask).run(flask)
            return None
        if debug or app.debug or options.get("use_reloader") or options.get("use_debugger"):
            _say("Neither debugger nor reloader: the address is public.")
        if background:
            return publish(app, host, port, provider)
        with signals_interrupt(), suppress(KeyboardInterrupt):  # as Flask's own
            publish(app, host, port, provider).wait()
        return None

    flask.run = run


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the block as Ctrl-C does, so that tunnels close."""
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
    """Serve the app in the background, open a tunnel to it, and print both addresses.

    It takes the place of what was published for the same port. Without a tunnel the app is
    served all the same, and a paragraph says what is missing.

    Args:
        app: any Flask app.
        host: the address to listen on; SERVER_NAME's, or 127.0.0.1.
        port: the port to listen on; SERVER_NAME's, or 5000. 0: any.
        provider: see :func:`run_with_ngrok`.
        token_line: what to advise, where anybody with the address can use the app.

    Raises:
        OSError: nobody can listen there.
        ValueError: there is no provider of that name, or no such port.
    """
    providers = choose(provider)
    host, port = _address(app, host, port)
    key = port or app.name
    _replace(key, app)
    app.debug = False
    if ancestors := _notebook():
        app.config.setdefault("FRAME_ANCESTORS", ancestors)
    share = _shares[key] = Share(app, host, port)
    try:
        if port not in (0, share.port):
            _say(f"Port {port} is taken; this is the next one that is free.")
        print(f" * Running on {share.local_url}", flush=True)
        if (classifier := _classifier(app)) is not None:
            classifier.start()
        if _open_tunnel(share, providers):
            _warn(app, token_line)
    except BaseException:
        share.close()
        raise
    return share


def _address(app: App, host: str | None, port: int | None) -> tuple[str, int]:
    """Where to listen, by Flask's rules."""
    name, _, number = (app.config.get("SERVER_NAME") or "").partition(":")
    if port is None:
        port = int(number or 5000)
    if not 0 <= int(port) <= 65535:
        raise ValueError(f"port is {port}; it can be 0 to 65535.")
    return host or name or "127.0.0.1", int(port)


def _replace(key: int | str, app: App) -> None:
    """Close what this port had before: the cell is run again."""
    if (before := _shares.pop(key, None)) is None:
        return
    before.close()
    classifier = _classifier(before.app)
    others = [share.app for share in _shares.values() if not share._closed.is_set()]
    in_use = [_classifier(one) for one in (app, *others)]
    if classifier is not None and not any(classifier is one for one in in_use):
        # Its memory, once it has loaded: a GPU has no room for two.
        classifier.loading.add_done_callback(lambda _: classifier.close())


def _classifier(app: App) -> Classifier | None:
    """The app's, if it is one of ours."""
    found = app.extensions.get("classifier")
    return found if isinstance(found, Classifier) else None


def _notebook() -> str | None:
    """Who shows a page inline here; None outside a notebook."""
    try:
        import google.colab  # noqa: F401
    except ImportError:
        return JUPYTER if "ipykernel" in sys.modules else None
    return COLAB


def _open_tunnel(share: Share, providers: Mapping[str, Provider]) -> bool:
    """By the first that can, and say where it is; whether strangers can use it."""
    token = find_token()
    failures: dict[str, TunnelError] = {}
    for name, provider in providers.items():
        try:
            tunnel = _attempt(provider, share.local_url, token)
        except TunnelError as error:
            failures[name] = error
            continue
        share.connect(tunnel)
        _announce(tunnel, failures)
        return tunnel.public
    reasons = "; ".join(f"{name}: {failure}" for name, failure in failures.items())
    missing = len(failures) > 1 and all(isinstance(f, Missing) for f in failures.values())
    remedy = f" {REMEDY}" if missing else ""
    _say(f"No public address ({reasons}); the app is at {share.local_url} all the same.{remedy}")
    return False


def _attempt(provider: Provider, address: str, token: str | None) -> Tunnel:
    """The provider's tunnel; every failure is a TunnelError."""
    try:
        tunnel = within(OPEN_S, lambda: provider(address, token), lambda late: late.close())
    except TunnelError:
        raise
    except TimeoutError:
        raise TunnelError("no answer in time") from None
    except Exception as error:
        raise TunnelError(f"{type(error).__name__}: {error}") from error
    if not isinstance(tunnel, Tunnel):
        raise TunnelError(f"it gave {tunnel!r} and no Tunnel")
    return tunnel


def _announce(tunnel: Tunnel, failures: Mapping[str, TunnelError]) -> None:
    for name, failure in failures.items():
        if not isinstance(failure, Missing):
            _say(f"Not by {name}: {failure}.")
    if tunnel.public:
        print(f" * Running on {tunnel.url}", flush=True)
    else:
        _say(f"Shown below by Colab, to you alone and while this notebook is open. {REMEDY}")


def _warn(app: App, token_line: str) -> None:
    """Say so where no token is asked for."""
    classifier = _classifier(app)
    if classifier is None:
        _say(WARNING)
    elif not (classifier.settings.tokens or classifier.settings.tokens_file):
        _say(f"{WARNING} For a token that all must bring, begin with this line:")
        print(f"   {token_line}", flush=True)


def _say(text: str) -> None:
    """Where the user of a notebook looks; the log may be anywhere."""
    paragraph = textwrap.fill(
        text, 96, initial_indent=" * ", subsequent_indent="   ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    print(paragraph, flush=True)


@atexit.register
def _close_all() -> None:
    while _shares:
        _shares.popitem()[1].close()
