"""A fake of cloudflared that logs like the real one; its tunnel leads nowhere.

In its folder, the file `mode` selects what it does, and it writes its process id to `process`.
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
mode = (HERE / "mode").read_text() if (HERE / "mode").exists() else "good"
if mode == "refused":
    sys.exit(REFUSED)
if mode == "ignores SIGTERM":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode != "silent":
    sys.stderr.write(QUICK if mode == "unregistered" else QUICK + REGISTERED)
    sys.stderr.flush()
for _ in range(20_000):  # more than fits into a pipe
    if mode == "logs a lot":
        sys.stderr.write("INF something\n")
(HERE / "done").touch()
signal.pause()
