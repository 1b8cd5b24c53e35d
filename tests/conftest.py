"""What many tests need: apps around a toy model."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from flask import Flask
from flask.testing import FlaskClient
from numpy.typing import NDArray
from werkzeug.routing import Rule

from app import create_app
from paths import TESTS
from predictor.engine.classifier import Classifier
from predictor.settings import Settings
from predictor.store.single import single
from predictor.store.store import Store
from toy import ToyModel, toy_model

pytest_plugins = ["chromium", "cli.fixtures", "clients.fixtures", "engine.fixtures",
                  "export.fixtures", "models.fixtures", "server.fixtures", "tunnels",
                  "web.fixtures"]  # fmt: skip

# Tests that get the marker `server`: those with one of these fixtures, or below these paths.
SERVER_FIXTURES = {"exposition", "guarded", "pair", "server", "start", "start_toy"}
SERVER_PATHS = {"browser", "clients", "ray", "runtimes", "tools", "test_benchmarks.py",
                "test_development.py", "test_faults.py", "test_notebook.py", "test_server.py",
                "test_slow_clients.py"}  # fmt: skip
# Tests that get the marker `slow`: they build, export or convert real networks.
SLOW_PATHS = {"export", "test_conversion.py", "test_exported.py", "test_shared_weights.py",
              "test_timm.py", "test_torchscript.py", "test_torchserve_archives.py",
              "test_torchvision_weights.py", "test_your_model.py"}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Mark the tests that start a server, a browser, a notebook or a long run, and slow ones."""
    for item in items:
        parts = item.path.relative_to(TESTS).parts
        if SERVER_PATHS.intersection(parts) or SERVER_FIXTURES.intersection(item.fixturenames):
            item.add_marker("server")
        if SLOW_PATHS.intersection(parts):
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """Each test makes its networks with the same random weights in each run."""
    torch.manual_seed(0)


class StuckModel(ToyModel):
    """After the warm-up, a forward pass sets ``entered`` and ends when ``let`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.let = threading.Event(), threading.Event()

    def logits(self, images: Sequence[NDArray[np.uint8]], lanes: int) -> NDArray[np.float32]:
        if any(image.any() for image in images):  # the warm-up's are black
            self.entered.set()
            assert self.let.wait(10)
        return super().logits(images, lanes)


@pytest.fixture(autouse=True)
def denormal_numbers() -> Iterator[None]:
    """Let this thread compute with denormal numbers again: a model that ran in it has flushed them.

    Other tests, of a whole process, would find them to be 0.
    """
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture
def make_classifier() -> Iterator[Callable[..., Classifier]]:
    """Build started classifiers around a toy model; settings are keyword arguments."""
    made: list[Classifier] = []

    def make(model: ToyModel | None = None, **settings: Any) -> Classifier:
        classifier = Classifier(Settings(**settings), load=lambda *_: toy_model(model))
        made.append(classifier)
        classifier.start()
        classifier.loading.result(timeout=10)
        return classifier

    yield make
    for classifier in made:
        classifier.close()


@pytest.fixture
def classifier(make_classifier: Callable[..., Classifier]) -> Classifier:
    return make_classifier()


@pytest.fixture
def loading_classifier() -> Iterator[Classifier]:
    """A classifier whose model is loading until the end of the test."""
    let = threading.Event()
    classifier = Classifier(Settings(), load=lambda *_: let.wait(60) and toy_model())
    yield classifier
    let.set()


@pytest.fixture
def make_app(make_classifier: Callable[..., Classifier]) -> Callable[..., Flask]:
    """Build apps around a toy model; settings are keyword arguments."""

    def make(model: ToyModel | None = None, **settings: Any) -> Flask:
        return app_of(make_classifier(model, **settings))

    return make


@pytest.fixture
def make_loading_app() -> Iterator[Callable[..., Flask]]:
    """Build apps whose model loads until the end of the test; settings are keyword arguments."""
    let = threading.Event()

    def make(**settings: Any) -> Flask:
        classifier = Classifier(Settings(**settings), load=lambda *_: let.wait(60) and toy_model())
        return app_of(classifier)

    yield make
    let.set()


@pytest.fixture
def loading_client(make_loading_app: Callable[..., Flask]) -> FlaskClient:
    return make_loading_app().test_client()


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app()


@pytest.fixture
def make_client(make_app: Callable[..., Flask]) -> Callable[..., FlaskClient]:
    """Build test clients of apps around a toy model; settings are keyword arguments."""
    return lambda model=None, **settings: make_app(model, **settings).test_client()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def store(app: Flask) -> Store:
    return store_of(app)


def app_of(classifier: Classifier) -> Flask:
    """An app around a classifier. If that is loaded, or has failed, the app knows it."""
    return create_app(classifier.settings, store_around(classifier))


def store_around(classifier: Classifier) -> Store:
    """A store of one classifier. If that is loaded, or has failed, the store knows it."""
    store = single(classifier.settings, classifier)
    if classifier.loading.done():
        store.start()
        store.loading.exception(timeout=10)
    return store


def store_of(app: Flask) -> Store:
    """The store behind an app."""
    store = app.extensions["predictor"]
    assert isinstance(store, Store)
    return store


@pytest.fixture(scope="session", autouse=True)
def _compile_url_rules_once() -> Iterator[None]:
    """werkzeug compiles the URL rules of each app: half the time of the tests of the app."""
    compile_builder, builders = Rule._compile_builder, {}

    def cached(rule: Rule, append_unknown: bool = True) -> Any:
        key = rule.rule, str(rule._trace), str(rule.defaults), append_unknown
        if key not in builders:
            builders[key] = compile_builder(rule, append_unknown)
        return builders[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rule, "_compile_builder", cached)
        yield


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting of the developer's own shell, or of another test, reaches a test."""
    import os

    for name in list(os.environ):
        if name.startswith("PREDICTOR_") or name == "NGROK_AUTHTOKEN":
            monkeypatch.delenv(name)
    yield
    for name in [name for name in os.environ if name.startswith("PREDICTOR_")]:
        del os.environ[name]  # what --model has set
