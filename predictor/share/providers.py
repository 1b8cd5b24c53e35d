"""The providers of tunnels: a function for each, and the order in which they are tried.

Each function imports its packages itself, so that only the packages in use must be installed.
"""

import copy
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from predictor.share.advice import NO_TOKEN, advise
from predictor.share.cloudflared import open_cloudflared
from predictor.share.flask_ngrok import open_flask_ngrok
from predictor.share.tunnel import Missing, Provider, Tunnel, TunnelError

TOKEN_VARIABLE = "NGROK_AUTHTOKEN"


def find_token() -> str | None:
    """Return the ngrok token from Colab's secret NGROK_AUTHTOKEN, or else from the environment.

    Call it in the main thread: only there can Colab ask the browser for the secret.
    """
    try:
        from google.colab import userdata

        secret = userdata.get(TOKEN_VARIABLE)
    except Exception:  # not in Colab, no such secret, no access to it, or no reply from the browser
        secret = None
    return (secret or os.environ.get(TOKEN_VARIABLE, "")).strip() or None


def open_ngrok(address: str, token: str | None, **options: Any) -> Tunnel:
    """Open a tunnel with ngrok's SDK; ``options`` are passed to ``ngrok.forward``."""
    try:
        import ngrok
    except ImportError:
        raise Missing("it is not installed (pip install ngrok)") from None
    if token is None:
        raise Missing(NO_TOKEN)
    try:
        url = ngrok.forward(address, authtoken=token, **options).url()
    except Exception as error:  # the SDK raises ValueError for every failure
        raise TunnelError(advise(error, token)) from None

    def close() -> None:
        ngrok.disconnect(url)
        if not ngrok.get_listeners():  # type: ignore[attr-defined] # its stubs lack it
            ngrok.kill()  # end the session, which keeps its token and counts towards the limit

    return Tunnel(url, close)


def open_pyngrok(address: str, token: str | None) -> Tunnel:
    """Open a tunnel with ngrok's agent. pyngrok starts the agent, and downloads it if necessary."""
    try:
        from pyngrok import conf, ngrok, process
        from pyngrok.exception import PyngrokError
    except ImportError:
        raise Missing("it is not installed (pip install pyngrok)") from None
    logger = logging.getLogger("pyngrok")
    if logger.level == logging.NOTSET:  # the TunnelError says what went wrong
        logger.setLevel(logging.CRITICAL)
    config = copy.copy(conf.get_default())
    config.auth_token = token or config.auth_token
    config.start_new_session = True  # otherwise interrupting any cell would end the agent
    if not config.auth_token:
        file = Path(conf.get_config_path(config))
        if not file.exists() or "authtoken:" not in file.read_text(errors="replace"):
            raise Missing(NO_TOKEN)
    try:
        # pyngrok's default name contains the URL, and the name becomes part of a path.
        name = f"app-{urlsplit(address).port}"
        url = str(ngrok.connect(address, name=name, pyngrok_config=config).public_url)
    except (PyngrokError, OSError) as error:
        reason = getattr(error, "ngrok_error", None) or error
        raise TunnelError(advise(reason, config.auth_token)) from None

    def close() -> None:
        if not process.is_process_running(config.ngrok_path):
            return  # any call below would start the agent again
        with suppress(PyngrokError, OSError):
            ngrok.disconnect(url, config)
            if ngrok.get_tunnels(config):
                return  # other tunnels use this agent
        ngrok.kill(config)

    return Tunnel(url, close)


def open_colab(address: str, _token: str | None = None) -> Tunnel:
    """Show the app below the cell with Colab's own proxy, for this notebook's user only."""
    try:
        from google.colab import output
        from IPython import get_ipython
    except ImportError:
        raise Missing("this is not a Colab notebook") from None
    if get_ipython() is None:  # a program started by a cell cannot show anything below the cell
        raise Missing("this program is not the notebook's own process")
    output.serve_kernel_port_as_iframe(urlsplit(address).port, width="100%", height="600")
    return Tunnel(address, lambda: None, public=False)


AUTO = "auto"
PROVIDERS: dict[str, Provider] = {  # in the order in which AUTO tries them
    "ngrok": open_ngrok,
    "pyngrok": open_pyngrok,
    "cloudflared": open_cloudflared,
    "colab": open_colab,
}
BY_NAME_ONLY: dict[str, Provider] = {"flask-ngrok": open_flask_ngrok}
NAMES = (AUTO, *PROVIDERS, *BY_NAME_ONLY)


def choose(provider: str | Provider) -> Mapping[str, Provider]:
    """Return the providers to try, in order. Raise ValueError if none has this name."""
    if not isinstance(provider, str):
        return {getattr(provider, "__name__", "the provider"): provider}
    if provider not in NAMES:
        raise ValueError(f"Unknown provider {provider!r}; it must be one of {', '.join(NAMES)}.")
    return PROVIDERS if provider == AUTO else {provider: (PROVIDERS | BY_NAME_ONLY)[provider]}
