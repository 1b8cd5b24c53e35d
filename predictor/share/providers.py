"""Who opens a tunnel: one function for each, and their order.

Each imports what it needs itself: only who uses it has to have it.
"""

from __future__ import annotations

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

TOKEN = "NGROK_AUTHTOKEN"


def find_token() -> str | None:
    """The token for ngrok: Colab's secret of that name, else the environment's variable.

    To be called in the main thread, where Colab can ask the browser.
    """
    try:
        from google.colab import userdata

        secret = userdata.get(TOKEN)
    except Exception:  # no Colab, no such secret, not for this notebook, nobody at the browser
        secret = None
    return (secret or os.environ.get(TOKEN, "")).strip() or None


def open_ngrok(address: str, token: str | None, **options: Any) -> Tunnel:
    """By ngrok's SDK, in this process; the options are those of its ``forward``."""
    try:
        import ngrok
    except ImportError:
        raise Missing("it is not installed (pip install ngrok)") from None
    if token is None:
        raise Missing(NO_TOKEN)
    try:
        url = ngrok.forward(address, authtoken=token, **options).url()
    except Exception as error:  # the SDK raises ValueError for everything
        raise TunnelError(advise(error, token)) from None

    def close() -> None:
        ngrok.disconnect(url)
        if not ngrok.get_listeners():  # type: ignore[attr-defined] # its stubs lack it
            ngrok.kill()  # the session, too: the account counts it, and it keeps its token

    return Tunnel(url, close)


def open_pyngrok(address: str, token: str | None) -> Tunnel:
    """By ngrok's agent, which pyngrok starts, and downloads where it is not there."""
    try:
        from pyngrok import conf, ngrok, process
        from pyngrok.exception import PyngrokError
    except ImportError:
        raise Missing("it is not installed (pip install pyngrok)") from None
    logger = logging.getLogger("pyngrok")
    if logger.level == logging.NOTSET:  # what went wrong is said in a sentence of ours
        logger.setLevel(logging.CRITICAL)
    config = copy.copy(conf.get_default())
    config.auth_token = token or config.auth_token
    config.start_new_session = True  # or interrupting any cell of the notebook would end it
    if not config.auth_token and not _holds_token(Path(conf.get_config_path(config))):
        raise Missing(NO_TOKEN)
    try:
        # By itself it makes the address a part of the name, and the name a part of a path.
        name = f"app-{urlsplit(address).port}"
        url = str(ngrok.connect(address, name=name, pyngrok_config=config).public_url)
    except (PyngrokError, OSError) as error:
        reason = getattr(error, "ngrok_error", None) or error
        raise TunnelError(advise(reason, config.auth_token)) from None

    def close() -> None:
        if not process.is_process_running(config.ngrok_path):
            return  # whoever asks it now would start it
        with suppress(PyngrokError, OSError):
            ngrok.disconnect(url, config)
            if ngrok.get_tunnels(config):
                return  # they are somebody else's
        ngrok.kill(config)

    return Tunnel(url, close)


def _holds_token(config: Path) -> bool:
    """Whether the agent has been told a token once and for all."""
    return config.exists() and "authtoken:" in config.read_text(errors="replace")


def open_colab(address: str, _token: str | None = None) -> Tunnel:
    """By Colab's own proxy, below the cell: for the notebook's user alone, while it is open."""
    try:
        from google.colab import output
        from IPython import get_ipython
    except ImportError:
        raise Missing("this is no Colab notebook") from None
    if get_ipython() is None:  # a program that a cell has started shows nothing below it
        raise Missing("this is not the notebook's own process")
    output.serve_kernel_port_as_iframe(urlsplit(address).port, width="100%", height="600")
    return Tunnel(address, lambda: None, public=False)


PROVIDERS: Mapping[str, Provider] = {  # in the order in which they are tried
    "ngrok": open_ngrok,
    "pyngrok": open_pyngrok,
    "cloudflared": open_cloudflared,
    "colab": open_colab,
}
BY_NAME_ONLY: Mapping[str, Provider] = {"flask-ngrok": open_flask_ngrok}
AUTO = "auto"
NAMES = (AUTO, *PROVIDERS, *BY_NAME_ONLY)


def choose(provider: str | Provider) -> Mapping[str, Provider]:
    """The providers to try, by name and in order.

    Raises:
        ValueError: there is none of that name.
    """
    if not isinstance(provider, str):
        return {getattr(provider, "__name__", "the provider"): provider}
    if provider not in NAMES:
        raise ValueError(f"There is no provider {provider!r}; there are {', '.join(NAMES)}.")
    return PROVIDERS if provider == AUTO else {provider: {**PROVIDERS, **BY_NAME_ONLY}[provider]}
