"""gunicorn's settings, each with its reason. The hooks are in ``predictor/server/hooks.py``.

Each process has one model, which runs waiting images in batches. Each request
has a thread, which waits for the model's answer.
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
from predictor.server.start import SameFormatLogger, bind_addresses, number_from_env, shared_memory

settings = configure()

bind = bind_addresses(settings)
wsgi_app = "wsgi:app"
worker_class = "predictor.server.worker.Worker"  # an event loop owns the connections
# One process per GPU, or one on the CPU: images of different processes cannot share a batch.
workers = number_from_env("WEB_CONCURRENCY", len(state.gpus) or 1, 1, 1000)
# When predictions and explanations use all other threads, 8 answer probes, the page and refusals.
threads = settings.max_in_flight + settings.max_explanations + 8
timeout = 60  # seconds without a heartbeat, which the worker also sends during requests
graceful_timeout = math.ceil(settings.request_timeout_s) + 5  # lets accepted requests finish
# Seconds. A load balancer must close idle connections first: otherwise it may send a request into a
# connection that is just being closed. AWS and nginx wait 60 s. Idle connections hold no thread.
keepalive = 75
preload_app = False  # CUDA and OpenMP's threads do not survive a fork
worker_tmp_dir = shared_memory()  # a slow disk would block the heartbeat
forwarder_headers = ""  # PREDICTOR_TRUSTED_PROXIES says whose headers are trusted
secure_scheme_headers: dict[str, str] = {}
logger_class = SameFormatLogger
control_socket_disable = True  # signals suffice, and a read-only file system cannot hold it
