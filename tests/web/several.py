"""Apps of several toy models, and of other ones later."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flask import Flask

from app import create_app
from conftest import store_of
from predictor.engine.admission import Process
from predictor.engine.classifier import Classifier
from predictor.models.scorer import LoadedModel
from predictor.settings import Settings
from predictor.store.store import Store
from predictor.store.wanted import Entry, Route, Wanted
from toy import ToyModel, toy_model

Models = Mapping[tuple[str, int], ToyModel | Exception]  # an exception: it cannot be loaded


class Larger(ToyModel):
    """A model that takes larger photos, and cannot be explained."""

    preprocessing = replace(ToyModel.preprocessing, size=(16, 12), resize=16)
    explains = False


def wanted(models: Models, default: str | None = None) -> Wanted:
    entries = {key: Entry(*key, None, str(id(model))) for key, model in models.items()}
    routes = {}
    for name in dict(models):
        versions = tuple(number for other, number in models if other == name[0])
        routes[name[0]] = Route(versions, versions[0], {})
    return Wanted(entries, routes, default)


def several(models: Models, default: str | None = None, **options: Any) -> Flask:
    """An app of these models, whose first version is the default."""
    settings, served = Settings(**options), [(models, default)]

    def load(entry: Entry) -> LoadedModel:
        model = served[-1][0][entry.name, entry.version]
        if isinstance(model, Exception):
            raise model
        loaded = toy_model(model)
        return replace(loaded, card=replace(loaded.card, input=model.preprocessing))

    def make(entry: Entry) -> Classifier:
        named = replace(settings, served_name=entry.name)
        return Classifier(named, lambda *_: load(entry), process)

    process = Process(settings)
    store = Store(settings, process, lambda: wanted(*served[-1]), make)
    app = create_app(settings, store)
    app.extensions["served"] = served
    store.start()
    store.loading.result(timeout=10)
    return app


def serve_instead(app: Flask, models: Models, default: str | None = None) -> None:
    """Serve other models; return when that is so."""
    store, done = store_of(app), threading.Event()
    app.extensions["served"].append((models, default))
    report = store.followers.report
    store.followers.report = lambda *given: report(*given) or given[2] or done.set()  # type: ignore
    store.follow()
    assert done.wait(10)
