"""Stands in for cloudflared: what it writes of a quick tunnel, in its own words. It leads nowhere.

The folder it lies in says how it goes, and learns its process id.
"""

import os
import signal
import sys
from pathlib import Path

HERE = Path(__file__).parent
QUICK = """INF Requesting new quick Tunnel on trycloudflare.com...
INF |  Your quick Tunnel has been created! Visit it at (it may take some time to be reachable):  |
INF |  https://red-green-blue.trycloudflare.com                                                  |
"""
REGISTERED = (
    "INF Registered tunnel connection connIndex=0 ip=192.0.2.1 location=xyz protocol=quic\n"
)
REFUSED = (
    'ERR failed to request quick Tunnel: Post "https://api.trycloudflare.com/tunnel": no such host'
)

(HERE / "process").write_text(str(os.getpid()))
(HERE / "arguments").write_text(" ".join(sys.argv[1:]))
fate = (HERE / "fate").read_text() if (HERE / "fate").exists() else "good"
if fate == "refused":
    sys.exit(REFUSED)
if fate == "obstinate":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if fate != "silent":
    sys.stderr.write(QUICK if fate == "unregistered" else QUICK + REGISTERED)
    sys.stderr.flush()
for _ in range(20_000):  # more than a pipe holds
    if fate == "talkative":
        sys.stderr.write("INF of no account\n")
(HERE / "done").touch()
signal.pause()
