"""gunicorn's values, each with its reason. The hooks are in ``predictor/server/hooks.py``.

One process owns the model and batches what waits; threads wait for it.
"""

import math
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # for gunicorn -c from elsewhere

# gunicorn finds the hooks by their names in this module.
from predictor.server.hooks import (  # noqa: F401
    child_exit,
    configure,
    on_exit,
    on_reload,
    on_starting,
    post_fork,
    post_worker_init,
    pre_fork,
    state,
    when_ready,
    worker_exit,
)
from predictor.server.start import SameFormatLogger, bind_address, number_from_env, shared_memory
from predictor.server.tls import ssl_context  # noqa: F401

settings = configure()

bind = bind_address()
wsgi_app = "wsgi:app"
worker_class = "predictor.server.worker.Worker"  # receives whole requests, then uses a thread
# One process per GPU, else one: a batch fills in one process only.
workers = number_from_env("WEB_CONCURRENCY", len(state.gpus) or 1, 1, 1000)
# The 8 extra threads answer probes, the page and refusals when all slots are held.
threads = settings.max_in_flight + settings.max_explanations + 8
timeout = 60  # of the worker's heartbeat, which continues while requests are in progress
graceful_timeout = math.ceil(settings.request_timeout_s) + 5  # every admitted request is answered
keepalive = 30  # an idle connection holds no thread, and a new one costs a round trip
preload_app = False  # neither CUDA nor OpenMP's threads survive a fork
worker_tmp_dir = shared_memory()  # a slow disk would block the heartbeat
forwarder_headers = ""  # PREDICTOR_TRUSTED_PROXIES says whose headers are trusted
secure_scheme_headers: dict[str, str] = {}
logger_class = SameFormatLogger
control_socket_disable = True  # signals suffice, and a read-only file system has no place for it
