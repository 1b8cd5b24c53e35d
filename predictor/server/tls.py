"""TLS handshakes with a time limit. gunicorn's threaded worker sets none."""

import ssl
from collections.abc import Callable
from typing import Any

HANDSHAKE_S = 5  # gunicorn waits as long for the first byte of a request


class TimedHandshake(ssl.SSLSocket):
    """A TLS connection whose handshake fails after :data:`HANDSHAKE_S` seconds."""

    def do_handshake(self, block: bool = False) -> None:
        """Do the handshake. After a timeout, raise the error for a client that has disconnected."""
        self.settimeout(HANDSHAKE_S)
        try:
            super().do_handshake(block)
        except TimeoutError as error:  # gunicorn does not log SSL_ERROR_EOF
            raise ssl.SSLError(ssl.SSL_ERROR_EOF, "The handshake took too long.") from error
        finally:
            self.settimeout(None)


def ssl_context(
    _config: Any, default_ssl_context_factory: Callable[[], ssl.SSLContext]
) -> ssl.SSLContext:
    """A hook that gunicorn calls. Return gunicorn's TLS context, with the time limit added."""
    context = default_ssl_context_factory()
    context.sslsocket_class = TimedHandshake
    return context
