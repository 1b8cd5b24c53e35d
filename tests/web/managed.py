"""An app of a store of toy models, with the management API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from predictor.engine.admission import Process
from predictor.engine.classifier import Classifier
from predictor.errors import ModelError
from predictor.settings import Settings
from predictor.store import file
from predictor.store.store import Store
from predictor.store.wanted import Entry
from predictor.web import create_app
from toy import toy_model
from web.access import bearer

MANAGER = "manager-of-the-store"
TEXT = """\
# of the shop
[models.flowers]
versions = [1]
"""


def write_store(folder: Path, text: str = TEXT) -> Path:
    """Write a store of versions 1 to 3 of flowers, of which 3 cannot be loaded, and dogs."""
    for place in ("flowers/1", "flowers/2", "flowers/3", "dogs/1"):
        (folder / place).mkdir(parents=True)
    (folder / "flowers/3/broken").touch()
    (folder / "store.toml").write_text(text)
    return folder


@contextmanager
def managed(
    folder: Path, load: Callable[[Entry], Any] = lambda _: toy_model(), **settings: Any
) -> Iterator[FlaskClient]:
    """A client, with the management token, of an app that serves the store."""
    chosen = Settings(store=str(folder), **{"management_tokens": (MANAGER,)} | settings)
    process = Process(chosen)

    def make(entry: Entry) -> Classifier:
        assert entry.folder is not None
        if (entry.folder / "broken").exists():
            raise ModelError("The file model.onnx is damaged.")
        named = Settings(served_name=entry.name, **settings)
        return Classifier(named, lambda *_: load(entry), process)

    store = Store(chosen, process, partial(file.read, folder), make, lambda: [folder / file.FILE])
    store.start()
    store.loading.result(timeout=10)
    client = create_app(chosen, store).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = bearer(MANAGER)["Authorization"]
    try:
        yield client
    finally:
        store.watch.close()
        store.close()
