"""What the console shows once the model is loaded."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from predictor import logs
from predictor.engine.served import Served
from predictor.models.scorer import LoadedModel
from predictor.store.store import Store
from predictor.store.table import Status

log = logging.getLogger(__name__)

# gunicorn's exit status for "app failed to load". If a worker ends with it, the server stops
# instead of starting worker after worker.
EXIT_APP_LOAD_ERROR = 4


def announce(store: Store, url: str, status: int = EXIT_APP_LOAD_ERROR) -> None:
    """Print what is served once it is loaded. If nothing can be loaded, end the process.

    If the log is JSON because it does not go to a terminal (``make serve 2>&1 | tee log``), print
    the text on standard output, too.

    The caller starts the store. ``status`` is the process's exit status if loading fails; the
    log says why.
    """

    def report(loading: Future[None]) -> None:
        if loading.exception() is not None:
            os._exit(status)  # sys.exit would end only this thread, which is the loader
        default, statuses = store.default, store.statuses()
        fields = {
            "url": url,
            "model": default and default.model.public(),
            "models": [f"{one.name}/{one.version} {one.state}" for one in statuses],
        }
        block = (
            summary(default.model, url)
            if default and len(statuses) == 1
            else overview(statuses, url, default)
        )
        if store.settings.all_tokens:
            block = block.replace("curl -F", 'curl -H "Authorization: Bearer $TOKEN" -F')
        log.info("Ready at %(url)s", fields, extra={"block": block})
        if store.settings.log_format == "auto" and not logs.is_text():
            with suppress(OSError):  # for example, the reader of a pipe has ended
                print(block, flush=True)

    store.loading.add_done_callback(report)


def summary(model: LoadedModel, url: str) -> str:
    """Return the block of text that says what is served and how to try it."""
    info = model.info
    single = ", one photo at a time" if model.scorer.max_batch_size == 1 else ""
    threads = "1 thread" if info.threads == 1 else f"{info.threads} threads"
    notice = f"\n  NOTE       {info.notice}\n" if info.notice else ""
    return f"""
Ready at {url}
{notice}
  model      {info.name}, {info.parameters:,} parameters, {info.classes} classes
  weights    {info.weights}
  labels     {info.labels}
  input      {model.card.input.describe()}
  output     {model.card.output.describe()}
  device     {info.device}, {info.precision}, {threads}{single}
  try        curl -F file=@photo.jpg {url}/predict
"""


def overview(statuses: Sequence[Status], url: str, default: Served | None) -> str:
    """Return the block of text for several models: what is served, what cannot be, what to try."""
    lines = "".join(
        f"\n  {one.name + '/' + str(one.version):<20} {_facts(one)}" for one in statuses
    )
    named = f"model={default.name}&version={default.version}" if default else "model=NAME"
    return f"""
Ready at {url}
{lines}

  try  curl -F file=@photo.jpg "{url}/predict?{named}"
"""


def _facts(status: Status) -> str:
    if status.served is None:
        return f"{status.state}: {status.reason}" if status.reason else status.state
    info = status.served.model.info
    facts = f"{info.classes:,} classes, {Path(info.weights).name}, {info.device}, {info.precision}"
    return f"{facts}. NOTE: {info.notice}" if info.notice else facts


def url_of(host: str, port: int) -> str:
    """Return the URL by which this machine reaches a server that listens on ``host``."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"
