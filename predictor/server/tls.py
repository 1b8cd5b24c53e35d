"""TLS handshakes with a time limit, which gunicorn's threads do not have."""

import ssl
from collections.abc import Callable
from typing import Any

HANDSHAKE_S = 5  # as long as gunicorn itself waits for the first byte of a request


class TimedHandshake(ssl.SSLSocket):
    """A TLS connection whose handshake fails after :data:`HANDSHAKE_S` seconds."""

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands; a timeout is raised as if the client had closed the connection."""
        self.settimeout(HANDSHAKE_S)
        try:
            super().do_handshake(block)
        except TimeoutError as error:  # this kind of SSLError is not logged
            raise ssl.SSLError(ssl.SSL_ERROR_EOF, "The handshake took too long.") from error
        finally:
            self.settimeout(None)


def ssl_context(
    _config: Any, default_ssl_context_factory: Callable[[], ssl.SSLContext]
) -> ssl.SSLContext:
    """Return gunicorn's TLS context, with the time limit. gunicorn calls this hook."""
    context = default_ssl_context_factory()
    context.sslsocket_class = TimedHandshake
    return context
