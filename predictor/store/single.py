"""A store of one model, which the settings describe."""

from predictor.engine.classifier import Classifier
from predictor.settings import Settings
from predictor.store.store import Store
from predictor.store.wanted import Entry, Route, Wanted


def single(settings: Settings, classifier: Classifier | None = None) -> Store:
    """Return a store of one version of one model, whose state never changes.

    ``classifier`` answers; None: a new one, made from the settings.
    """
    classifier = classifier or Classifier(settings)
    # With ``auto``, the loaded model says its name: another one may stand in for it.
    name = settings.model if settings.served_name == "auto" else settings.served_name
    entry = Entry(name, 1, None, "")
    wanted = Wanted({(name, 1): entry}, {name: Route((1,), 1, {})}, name)
    return Store(settings, classifier.process, lambda: wanted, lambda _: classifier)
