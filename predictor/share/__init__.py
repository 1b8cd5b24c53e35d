"""Give any Flask app a public URL, from a notebook or from the command line.

Two lines are enough. They are the same as with flask-ngrok::

    run_with_ngrok(app)
    app.run()

No other package imports ngrok, pyngrok or flask_ngrok.
"""

from predictor.share.launcher import publish, run_with_ngrok, signals_interrupt
from predictor.share.providers import NAMES
from predictor.share.share import Share
from predictor.share.tunnel import Provider, Tunnel, TunnelError

__all__ = [
    "NAMES", "Provider", "Share", "Tunnel", "TunnelError", "publish", "run_with_ngrok",
    "signals_interrupt",
]  # fmt: skip
