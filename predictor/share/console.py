"""The messages for the user of a notebook or a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from predictor.share.advice import TOKEN_PAGE
from predictor.share.providers import TOKEN_VARIABLE
from predictor.share.share import App, classifier_of
from predictor.share.tunnel import Missing, Tunnel, TunnelError

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


def say(text: str) -> None:
    """Print a paragraph on standard output, which a notebook shows; the log may be a file."""
    paragraph = textwrap.fill(
        text, 96, initial_indent=" * ", subsequent_indent="   ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    print(paragraph, flush=True)


def say_tunnel(tunnel: Tunnel, failures: Mapping[str, TunnelError]) -> None:
    """Print where the tunnel leads, and why earlier providers that could be used failed."""
    for name, failure in failures.items():
        if not isinstance(failure, Missing):
            say(f"{name} could not be used: {failure}.")
    if tunnel.public:
        print(f" * Running on {tunnel.url}", flush=True)
    else:
        say(f"Colab shows the app below, to you only and while this notebook is open. {REMEDY}")


def say_no_tunnel(local_url: str, failures: Mapping[str, TunnelError]) -> None:
    """Print why each provider failed, and what to do if all of them lacked something."""
    reasons = "; ".join(f"{name}: {failure}" for name, failure in failures.items())
    missing = len(failures) > 1 and all(isinstance(f, Missing) for f in failures.values())
    remedy = f" {REMEDY}" if missing else ""
    say(f"No public URL ({reasons}). The app still runs at {local_url}.{remedy}")


def warn_if_open(app: App, token_line: str) -> None:
    """Print a warning if the app requires no token, with a line of code that changes this."""
    if (classifier := classifier_of(app)) is None:
        say(WARNING)
    elif not classifier.settings.all_tokens:
        say(f"{WARNING} To require a token, run this line before the app starts:")
        print(f"   {token_line}", flush=True)
