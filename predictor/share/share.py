"""A Flask app that is being served, with the tunnel to it."""

from __future__ import annotations

import atexit
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from predictor.server.background import BackgroundServer
from predictor.share.tunnel import Tunnel, within
from predictor.store.store import Store
from predictor.web.request import KEY

if TYPE_CHECKING:
    from flask import Flask

CLOSE_TIMEOUT_S = 10  # more than any provider's own timeout


class Share:
    """A Flask app that is being served, and the tunnel to the app if one is open.

    ``local_url`` is the app's URL on this machine. ``public_url`` is the URL that anyone can use.
    It is None if no tunnel is open, or if the tunnel is Colab's proxy, which is not public.
    """

    def __init__(self, app: Flask, host: str, port: int) -> None:
        """Start to serve on the port, or the next free one. Close the share when the process ends.

        Raises:
            OSError: the server cannot listen on the host.
        """
        options: dict[str, Any] = {}
        if (store := store_of(app)) is not None:  # our own app logs requests itself
            options = {"timeout_s": store.settings.receive_timeout_s, "quiet": True}
        self._server = BackgroundServer(app, host, port, **options)
        self.app, self.local_url, self.port = app, self._server.url, self._server.port
        self.public_url: str | None = None
        self._tunnel: Tunnel | None = None
        self._closed = threading.Event()
        self._closing = threading.Lock()
        atexit.register(self.close)

    def __repr__(self) -> str:
        """Return the text that a notebook shows below a cell that ends with ``app.run()``."""
        return f"<Share {self.url}>"

    @property
    def url(self) -> str:
        """The public URL. If there is none, the local URL."""
        return self.public_url or self.local_url

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` has finished."""
        return self._closed.is_set()

    def connect(self, tunnel: Tunnel) -> None:
        """Use this tunnel, and close it together with the share."""
        self._tunnel = tunnel
        if tunnel.public:
            self.public_url = self.app.config["PUBLIC_URL"] = tunnel.url

    def wait(self) -> None:
        """Block until the share is closed. An interrupt (Ctrl-C) closes the share."""
        try:
            self._closed.wait()
        except KeyboardInterrupt:
            print(" * Stopped.", flush=True)
        finally:
            self.close()

    def close(self) -> None:
        """Close the tunnel and stop serving. A second call does nothing."""
        with self._closing:
            if self.closed:
                return
            try:
                if self._tunnel is not None:
                    with suppress(Exception):  # the tunnel has ended, or ends with this process
                        within(CLOSE_TIMEOUT_S, self._tunnel.close)
            finally:
                if self.app.config.get("PUBLIC_URL") == self.public_url:  # set by this share
                    self.app.config.pop("PUBLIC_URL", None)
                self._server.close()
                self._closed.set()
                atexit.unregister(self.close)


def store_of(app: Flask) -> Store | None:
    """Return the app's store, or None if the app is not one of ours."""
    store = app.extensions.get(KEY)
    return store if isinstance(store, Store) else None
