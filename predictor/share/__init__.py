"""A public address for a Flask app, out of a notebook or from the command line.

The habit of two lines stays::

    run_with_ngrok(app)
    app.run()
"""

from __future__ import annotations

from predictor.share.launcher import Share, publish, run_with_ngrok, signals_interrupt
from predictor.share.providers import NAMES
from predictor.share.tunnel import Provider, Tunnel, TunnelError

__all__ = [
    "NAMES",
    "Provider",
    "Share",
    "Tunnel",
    "TunnelError",
    "publish",
    "run_with_ngrok",
    "signals_interrupt",
]
