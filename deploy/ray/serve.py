"""The app on Ray Serve: ``serve run deploy.ray.serve:app``. docs/scaling.md describes it.

Each replica is a process with the whole app. Ray decides how many replicas there are and which of
them gets a request.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from a2wsgi import WSGIMiddleware
from ray import serve

from predictor import logs
from predictor.engine.memory import keep_for_next_pass
from predictor.engine.readings import Readings
from predictor.errors import InferenceFailed
from predictor.settings import Settings
from predictor.store.folder import store_for
from predictor.web import create_app
from predictor.web.api import metrics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flask import Flask, Response
    from prometheus_client import Metric

SCRAPE_S = 5.0  # for all replicas to report; those that do not are left out
SWITCH_S = 0.001  # as in predictor.server.worker

settings = Settings.from_env()
# As in gunicorn.conf.py: when predictions use all slots, 8 threads answer probes and refusals.
THREADS = settings.max_in_flight + settings.max_explanations + 8


@serve.deployment(
    max_ongoing_requests=THREADS,  # of a replica, so that the app refuses requests and says why
    max_queued_requests=THREADS,  # may wait for that; Ray answers further ones with 503
    graceful_shutdown_timeout_s=settings.request_timeout_s + 5,
    logging_config={"enable_access_log": False},  # the app logs its requests itself
)
@serve.ingress()
class Predictor:
    """A replica: the app with its models, on its share of the node's processors."""

    def __init__(self) -> None:
        """Load the models. Serve sends requests only to replicas that have done so.

        Raises:
            StartError: nothing can be loaded. Then the deployment fails with this message.
        """
        sys.setswitchinterval(SWITCH_S)
        own = Settings.from_env()
        logs.configure(own.log_format)
        # Ray pins no process to processors, and sets OMP_NUM_THREADS for some only.
        share = ray.get_runtime_context().get_assigned_resources().get("CPU", 1)
        self._settings = replace(own, cpus=max(1, int(share)))
        self._store = store_for(self._settings)
        self._store.start()
        self._store.loading.result()
        keep_for_next_pass()

    def __serve_build_asgi_app__(self) -> Any:
        """Return the app. asgiref's adapter lacks the lifespan protocol, which Ray requires."""
        app = create_app(self._settings, self._store)
        app.view_functions["metrics.metrics"] = metrics_of_all_replicas
        return WSGIMiddleware(partial(adapted, app), workers=THREADS)

    def check_health(self) -> None:
        """Raise InferenceFailed if Ray must replace this replica."""
        try:
            self._store.expect_healthy()
        except InferenceFailed:
            self._store.abandon()
            raise

    def readings(self) -> list[Metric]:
        """Return this replica's metrics, with its id as the label ``replica``."""
        replica = serve.get_replica_context().replica_id.unique_id
        families = [*self._store.metrics.readings().collect()]
        for family in families:
            family.samples = [
                sample._replace(labels={**sample.labels, "replica": replica})
                for sample in family.samples
            ]
        return families


def adapted(app: Flask, environ: dict[str, Any], start_response: Any) -> Any:
    """Answer a request. Ray's proxy has read the body to its end, and adds X-Request-ID itself."""
    environ["wsgi.input_terminated"] = True  # or a chunked body would be empty

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        kept = [header for header in headers if header[0] != "X-Request-ID"]
        return start_response(status, kept, exc_info)

    return app(environ, start)


def metrics_of_all_replicas() -> Response:
    """Answer ``GET /metrics`` for all replicas: any of them may be asked.

    Each has its own series. Sums would fall when a replica ends.
    """
    handle = serve.get_deployment_handle("Predictor", serve.get_replica_context().app_name)
    found = handle.broadcast("readings").results(timeout_s=SCRAPE_S, return_exceptions=True)
    return metrics.exposition(Readings(merged(f for f in found if isinstance(f, list))))


def merged(replicas: Iterable[list[Metric]]) -> list[Metric]:
    """Return one family of each name, with the samples of all replicas."""
    families: dict[str, Metric] = {}
    for metric in (metric for replica in replicas for metric in replica):
        if metric.name in families:
            families[metric.name].samples += metric.samples
        else:
            families[metric.name] = metric
    return [*families.values()]


app = Predictor.bind()
